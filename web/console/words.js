// What the page says, in English; words_zh.js has the same keys in Chinese.
import {words as zh} from './words_zh.js';

export const en = {
  overview: 'Overview', engine: 'Engine', requests: 'Requests', fleet: 'Upstreams', hardware: 'Hardware',
  business: 'Outcomes', playground: 'Playground', settings: 'Configuration', views: 'Views',
  live: 'live', paused: 'paused', offline: 'no connection', theme: 'Dark or light', language: '中文', language_name: 'Language: 中文',
  keys: 'Keys', help: 'Keyboard shortcuts', pause: 'Pause', resume: 'Resume', close: 'Close', save: 'Save', skip: 'Skip to content',
  ready: 'ready', loading: 'loading', stalled: 'stalled', device_failed: 'GPU failed', draining: 'draining', up: 'up',
  why: 'Why is it slow?', time_of: 'Where the time of recent requests went', no_requests: 'No request has ended in the last ten seconds.',
  queue: 'queue', prefill: 'prefill', decode: 'decode', upstream: 'upstream', other: 'parsing and writing',
  good: 'good', busy: 'busy', bad: 'slow',
  v_idle: 'Nothing to do', d_idle: 'No request is running or waiting. Whatever is slow is not here.',
  v_loading: 'The model is loading', d_loading: 'Requests are refused until it is ready.',
  v_draining: 'The server is shutting down', d_draining: 'Running requests are being finished; new ones are refused.',
  v_device_failed: 'A GPU in use reported an error of its own', d_device_failed: '/health names the card and its XID and says 503 until the program is started anew. Drain the machine; see the runbook SpillwayGpuXid.',
  v_stalled: 'The engine makes no progress', d_stalled: 'There is work, and no step has ended for too long. Look at the log and take a trace.',
  v_upstreams: 'No upstream is healthy', d_upstreams: 'Every breaker is open. Requests wait or fail until one is tried again.',
  v_upstream_time: 'Upstreams take the time', d_upstream_time: 'Most of a request passes at other servers. Compare their first-token times.',
  v_slots: 'All sequence slots are taken', d_slots: 'Requests wait for a slot, not for the processor. Raise engine.sequences_max if a step has room to its floor.',
  v_kv_pages: 'The KV cache is full', d_kv_pages: 'Requests wait for pages. Give engine.kv_cache more memory, or shorten contexts.',
  v_host_cpu: 'Other programs use the processor', d_host_cpu: 'Steps wait for cores that something else on this machine uses.',
  v_memory_bandwidth: 'Memory bandwidth', d_memory_bandwidth: 'A step is the time to read weights and cache. More rows in a step cost little; a smaller precision is faster.',
  v_compute: 'Arithmetic', d_compute: 'A step is the time of its multiplications, mostly prompts. Prefix cache hits and shorter prompts help.',
  v_overhead: 'Overhead between operations', d_overhead: 'Steps take far longer than memory or arithmetic need: small model, thread hand-over or scheduling.',
  v_clients: 'Reading and writing', d_clients: 'Most time passes outside the engine: parsing, templates, slow readers.',
  step: 'step', floor: 'floor of a step', of_floor: 'of the floor', bandwidth: 'memory bandwidth measured', slots: 'slots used', pages_used: 'pages used', wait: 'predicted wait', others: 'processor used by others', errors: 'errors',
  requests_per_s: 'Requests / s', first_token: 'First token', latency: 'Latency', p50: 'p50', p95: 'p95', p99: 'p99', generated: 'Tokens out / s', prompt_tokens: 'Tokens in / s', in_flight: 'In flight', running: 'Running', waiting: 'Waiting', cache_hits: 'Cache hits', refusals: 'refused / s', of_prompt: 'of prompt tokens',
  heat: 'Latency, second by second', heat_label: 'Heat map of request latency over the last three minutes; darker is more requests.', minutes_ago: '3 min ago', now: 'now', requests_count: 'requests', last_minutes: 'Last three minutes', waiting_series: 'Requests waiting',
  batch: 'Batch of the last step', rows: 'rows on average', decode_rows: 'decode rows', prefill_tokens: 'prefill tokens', draft_rows: 'drafts', free_rows: 'free in the budget', streams: 'Streams', no_streams: 'No streams.',
  request: 'Request', phase: 'Phase', prompt: 'Prompt', cached: 'Cached', output: 'Output', pages: 'Pages', age: 'Age', predicted: 'Begins in', progress: 'Progress', priority: 'Priority',
  kv: 'KV cache pages', kv_label: 'Map of the pages: free, cached, used, shared', free: 'free', used: 'used', shared: 'shared',
  tree: 'Prefix tree', tree_facts: (t) => `${t.pages} pages in ${t.roots} prefixes, ${t.forks} forks, ${t.leaves} leaves, ${t.depth} pages deep; ${t.idle} reclaimable`, prefix: 'Prefix', depth: 'depth', tree_empty: 'No prefix is cached yet.',
  model: 'Model', no_models: 'This server has no model of its own; it sends requests on.', waits: 'waiting', one_shot: 'One-shot models', inputs: 'Inputs', inputs_a_batch: 'Inputs a batch', compute_time: 'Compute',
  find: 'Find a request', find_label: 'Request id (X-Request-Id, or the id in an answer)', show: 'Show', recent: 'Recent requests', route: 'Route', status: 'Status', total: 'Total', tokens: 'Tokens', hops: 'Hops', timeline: 'Timeline of', moment: 'Moment', at: 'At', detail: 'Detail', not_found: 'No request of this id among the latest.', pending: 'running',
  m_received: 'received', m_queued: 'queued', m_refused: 'refused', m_started: 'prefill begins', m_prefill: 'prefill chunk', m_tokens: 'tokens', m_preempted: 'preempted', m_finished: 'engine done', m_attempt: 'sent to upstream', m_first_byte: 'first token from upstream', m_failed: 'attempt failed', m_resumed: 'taken up elsewhere', m_answered: 'last byte',
  no_upstreams: 'No upstreams are configured. This server answers by its own models (docs/routing.md).', healthy: 'healthy', probing: 'probing', down: 'down', share: 'traffic share', tier: 'tier', kind: 'kind', load: 'in flight', decode_rate: 'tokens / s a stream', ttft: 'first token p50 / p99', price: 'price per M in / out', retry_in: 'tried again in', says: 'says of itself', any_model: 'any model', models: 'models',
  arm: 'Arm', estimate: 'Estimate', interval: '95% interval', against_first: 'Against the first', apart: 'intervals apart', together: 'no difference shown', window: 'Window', window_1h: 'last hour', window_24h: 'last day', arms_help: 'Arms come from the header X-Experiment-Arm, else the upstream that answered. Intervals that do not meet show a difference.', measure_conversion_ratio: 'Conversion', measure_value_per_request: 'Value per request', measure_ndcg_ratio: 'nDCG', measure_mrr_ratio: 'Mean reciprocal rank', measure_accuracy_ratio: 'Accuracy', measure_thumbs_up_ratio: 'Thumbs up', measure_cost_per_conversion_dollars: 'Cost per conversion (dollars)',
  host: 'Host', processors: 'processors', cpu_own: 'this server', cpu_other: 'other programs', cpu_free: 'free', no_hardware: 'No device reports readings.', metric: 'Metric', value: 'Value', labels: 'Labels', no_business: 'No outcome has been reported yet. Send POST /v1/feedback with a request id.',
  chat: 'Chat', embeddings: 'Embeddings', images: 'Images', system: 'System prompt', temperature: 'Temperature', max_tokens: 'Max tokens', message: 'Message', send: 'Send', stop: 'Stop', clear: 'New conversation', thought: 'Reasoning', thinking: 'Thinking…', texts: 'Texts, one a line', embed: 'Embed', similarity: 'Cosine similarity', dimensions: 'dimensions', picture: 'Picture', classify: 'Classify', class_name: 'Class', probability: 'Probability', speed: 'tokens / s', see_timeline: 'timeline', failed: 'Failed', you: 'You', answer: 'Answer',
  option: 'Option', from: 'From', filter: 'Filter', key_title: 'Keys', key_why: 'They stay in this browser tab.', admin_key: 'Admin key (console)', api_key: 'API key (playground); empty: the same', key_needed: 'This server asks for a key.',
  s_views: 'go to a view', s_find: 'find a request', s_pause: 'pause and resume', s_theme: 'dark or light', s_language: 'language', s_help: 'this list',
};

export const languages = {en, zh};
let current = localStorage.getItem('language') || (navigator.language.startsWith('zh') ? 'zh' : 'en');
export function language() { return current; }
export function setLanguage(name) {
  current = name;
  localStorage.setItem('language', name);
  document.documentElement.lang = name === 'zh' ? 'zh-CN' : 'en';
}
setLanguage(languages[current] ? current : 'en');

export function t(key, argument) {
  const word = languages[current][key] ?? en[key] ?? key;
  return typeof word === 'function' ? word(argument) : word;
}
