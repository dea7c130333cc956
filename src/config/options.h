// The one table of options. A row is everything there is to know of an option: its key in the file, its flag, its type,
// default, bounds and help; the environment variable follows from the key. The parser, --help, `config print` and
// docs/configuration.md all read this table. Constant data, checked at compile time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace spillway::config {

enum class Type { kString, kInt, kFloat, kBool, kDuration, kBytes, kStrings, kInts };

struct Option {
  const char* key;   // "section.name"
  const char* flag;  // without the dashes; a bool also has "no-" and the flag
  Type type;
  const char* initial;  // the default, as it would be written in a flag
  const char* help;
  const char* choices = "";  // of a string: "a|b|cuda:#" ('#' stands for digits)
  double min = 0;            // of a number, in seconds or bytes where the type has a unit
  double max = 1e18;
  bool hot = false;     // taken over from the file on SIGHUP; the others need a restart
  bool secret = false;  // never printed
};

inline constexpr double kPortMax = 65535;

// clang-format off
inline constexpr Option kOptions[] = {
  {"model.path", "model", Type::kString, "builtin", "Folder of a Hugging Face checkpoint or of its numbered versions, where one lies (s3://BUCKET/PREFIX, https://HOST/FOLDER), \"builtin\" for the embedded tiny-r1, or \"none\" for a gateway alone. With random weights also a config.json or a named shape."},
  {"model.name", "model-name", Type::kString, "", "Name in the API. Empty: the folder's name."},
  {"model.aliases", "model-aliases", Type::kStrings, "deepseek-reasoner,deepseek-chat", "Further names in the API that reach this model, so that DeepSeek clients need no change."},
  {"model.versions", "model-versions", Type::kString, "latest", "Of a folder with numbered versions, those to serve: latest, all, or numbers with commas."},
  {"model.load", "model-load", Type::kBool, "true", "Load the model at the start; otherwise when the repository's API asks for it."},
  {"model.precision", "precision", Type::kString, "auto", "Numbers to compute with; int8 quantises the weights at load, and on a GPU fp8 (blocks of 128 x 128) and int4 (language models) do as well. tf32: fp32 with products of a GPU's tensor cores. fp16: encoders and vision models on a GPU. auto: as the checkpoint is stored.", "fp32|tf32|bf16|fp16|int8|fp8|int4|auto"},
  {"model.cache", "model-cache", Type::kString, "auto", "Keep the packed weights of a checkpoint on disk, so that the next start maps them instead of packing. auto: written in the background once the model serves. on: written before it serves.", "auto|on|off"},
  {"model.cache_dir", "model-cache-dir", Type::kString, "", "Folder of the packed weights. Empty: $XDG_CACHE_HOME/spillway or ~/.cache/spillway."},
  {"model.cache_bytes_max", "model-cache-bytes-max", Type::kBytes, "64GiB", "Packed weights in the folder together; the least recently used are removed. A tenth of the disk is always left free."},
  {"model.random_weights", "random-weights", Type::kBool, "false", "Build the model's config with random weights in memory, for benchmarks of a shape."},
  {"model.batch_size", "batch-size", Type::kInt, "0", "Most inputs in one batch of a one-shot model (encoders, images); 0: as many as the model takes (256; images on a CPU 32). Language models batch by tokens.", "", 0, 65536},
  {"model.context_tokens_max", "context-tokens-max", Type::kInt, "0", "Longest sequence, prompt and output together. 0: what the model was made for."},
  {"model.default_max_tokens", "default-max-tokens", Type::kInt, "0", "Output tokens of a request that names no limit. 0: as generation_config.json says, else the rest of the context."},

  {"hardware.device", "device", Type::kString, "auto", "Where the model runs.", "auto|cpu|cuda|cuda:#"},
  {"hardware.gpu_ids", "gpu-ids", Type::kInts, "", "GPUs to use, by number. Not used on the CPU.", "", 0, 1023},
  {"hardware.memory_fraction", "memory-fraction", Type::kFloat, "0.9", "Share of the free memory that weights and cache may take together; of a GPU's whole memory, all else on it included.", "", 0.05, 1},
  {"hardware.strict", "strict", Type::kBool, "false", "Refuse to start where a device or precision that was asked for cannot be had, instead of saying what is used in its place."},
  {"hardware.deterministic", "deterministic", Type::kBool, "false", "On a GPU: kernels whose bits do not depend on what else is in the batch, so that a request's tokens do not depend on its neighbours. Slower; on a CPU this holds always."},
  {"hardware.autotune", "autotune", Type::kBool, "false", "On a GPU: measure the library's product kernels for this model's shapes at the start, and keep what was learned on disk beside the packed weights for later starts (by device, driver, model and build)."},
  {"hardware.threads", "threads", Type::kInt, "0", "Threads that compute. 0: one a physical core.", "", 0, 1024},

  {"network.host", "host", Type::kString, "127.0.0.1", "Address to listen on; 0.0.0.0 for all."},
  {"network.port", "port", Type::kInt, "8000", "HTTP port. 0: any free one.", "", 0, kPortMax},
  {"network.grpc_port", "grpc-port", Type::kInt, "50051", "gRPC port: KServe's inference protocol with Triton's extensions, and chat. 0: off. A gateway without models opens it only when it is set.", "", 0, kPortMax},
  {"network.metrics_port", "metrics-port", Type::kInt, "9100", "Port of /metrics alone, beside /metrics on the HTTP port. 0: off.", "", 0, kPortMax},
  {"network.max_workers", "max-workers", Type::kInt, "2", "Threads that serve connections.", "", 1, 256},
  {"network.port_file", "port-file", Type::kString, "", "File to write the HTTP port to once it listens."},

  {"tls.cert", "tls-cert", Type::kString, "", "PEM file of the certificate chain. With tls.key: HTTPS instead of HTTP."},
  {"tls.key", "tls-key", Type::kString, "", "PEM file of the private key."},

  {"server.api_keys", "api-keys", Type::kStrings, "", "Keys that clients may present. None: no key is asked for.", "", 0, 1e18, true, true},
  {"server.api_keys_file", "api-keys-file", Type::kString, "", "File with one such key a line; read again on SIGHUP.", "", 0, 1e18, true},
  {"server.admin_keys", "admin-keys", Type::kStrings, "", "Keys that open the console and its API (docs/console.md). None: what clients are asked for.", "", 0, 1e18, true, true},
  {"server.admin_keys_file", "admin-keys-file", Type::kString, "", "File with one such key a line; read again on SIGHUP.", "", 0, 1e18, true},
  {"server.keep_alive_interval", "keep-alive-interval", Type::kDuration, "10s", "While a request waits, a comment is sent this often so that nobody hangs up.", "", 0.01, 3600},
  {"server.stall_timeout", "stall-timeout", Type::kDuration, "8s", "With work to do and no progress for this long, readiness turns 503.", "", 0.1, 3600, true},
  {"server.drain_timeout", "drain-timeout", Type::kDuration, "30s", "After SIGTERM, running requests get this long to end.", "", 0, 86400},
  {"server.cors", "cors", Type::kStrings, "", "Origins that browsers may call from; \"*\" for any."},
  {"server.open_health", "open-health", Type::kBool, "true", "/health asks for no key."},
  {"server.open_metrics", "open-metrics", Type::kBool, "true", "/metrics asks for no key."},
  {"server.trickle", "trickle", Type::kBool, "false", "Send empty lines while a non-streaming answer is being made, as DeepSeek does; a late failure is then told in the body alone."},
  {"server.strict_reasoning_content", "strict-reasoning-content", Type::kBool, "false", "Refuse reasoning_content in input messages, as R1's first API did."},

  {"limits.header_bytes", "header-bytes", Type::kBytes, "32KiB", "Largest request header.", "", 1024, 1 << 24},
  {"limits.body_bytes", "body-bytes", Type::kBytes, "32MiB", "Largest request body.", "", 1024, 1 << 30},
  {"limits.bodies_bytes", "bodies-bytes", Type::kBytes, "512MiB", "Request bodies being received at once, together.", "", 1024},
  {"limits.header_timeout", "header-timeout", Type::kDuration, "10s", "A request's header must arrive within this.", "", 0.01, 3600},
  {"limits.body_timeout", "body-timeout", Type::kDuration, "2m", "A request's body must arrive within this.", "", 0.01, 3600},
  {"limits.rate_min", "rate-min", Type::kBytes, "1KiB", "Bytes a second; bodies that come or answers that go slower, after ten seconds of grace, are cut off."},
  {"limits.idle_timeout", "idle-timeout", Type::kDuration, "75s", "A kept-alive connection without a request is closed after this.", "", 0.01, 86400},
  {"limits.write_timeout", "write-timeout", Type::kDuration, "30s", "A client that reads nothing for this long is cut off.", "", 0.01, 3600},
  {"limits.connections", "connections-max", Type::kInt, "4096", "Connections open at once.", "", 1, 1 << 20},

  {"engine.kv_cache", "kv-cache", Type::kBytes, "0", "Memory for keys and values. 0: what sequences_max contexts need, within memory_fraction."},
  {"engine.kv_populate", "kv-populate", Type::kBool, "false", "Make the whole cache resident at the start, so that memory stays flat and no page fault falls into a step."},
  {"engine.page_tokens", "page-tokens", Type::kInt, "16", "Tokens in a page of the cache.", "", 1, 1024},
  {"engine.sequences_max", "sequences-max", Type::kInt, "256", "Sequences that run at once.", "", 1, 65536},
  {"engine.batch_tokens_max", "batch-tokens-max", Type::kInt, "512", "Tokens in one step; longer prompts are cut into chunks.", "", 1, 65536},
  {"engine.queue_requests_max", "queue-requests-max", Type::kInt, "1024", "Requests that may wait.", "", 0, 1 << 20, true},
  {"engine.queue_tokens_max", "queue-tokens-max", Type::kInt, "1048576", "Tokens of the requests that may wait.", "", 0, 1e18, true},
  {"engine.queue_wait_max", "queue-wait-max", Type::kDuration, "60s", "A request that would wait longer, as predicted, is refused at once.", "", 0, 86400, true},
  {"engine.prefix_cache", "prefix-cache", Type::kBool, "true", "Keep computed prompts for requests that begin the same way."},
  {"engine.speculate", "speculate", Type::kBool, "true", "Draft tokens with the model's MTP layer where it has one."},
  {"engine.speculate_adaptively", "speculate-adaptively", Type::kBool, "true", "Stop drafting where the measured cost says that it loses."},
  {"engine.niceness", "niceness", Type::kInt, "5", "How far the computing threads stand back for the threads that serve connections, and for other programs.", "", 0, 19},
  {"engine.step_target", "step-target", Type::kDuration, "250ms", "Prompts share a step with running sequences for about this long.", "", 0.001, 60},

  {"batching.tokens_max", "batching-tokens-max", Type::kInt, "16384", "Tokens in one batch of a one-shot model (images: model.batch_size counts alone).", "", 1, 1 << 24},
  {"batching.delay_max", "batching-delay-max", Type::kDuration, "2ms", "The longest that a batch is held back for more to come, where measurements say that it pays. 0: never.", "", 0, 60},
  {"batching.latency_target", "batching-latency-target", Type::kDuration, "0s", "Keep batches small enough that a request waits for one and is in one within this. 0: as large as pays.", "", 0, 3600},
  {"batching.cooldown", "batching-cooldown", Type::kDuration, "30s", "The largest batch and the delay change no more than once in this.", "", 0, 86400},
  {"batching.warm_up", "batching-warm-up", Type::kDuration, "1s", "Time for sample batches, which are measured, before a model is ready; on a GPU as much again for the sizes of batches that it prepares for. 0: none.", "", 0, 600},
  {"batching.timeout", "batching-timeout", Type::kDuration, "0s", "Longest wait for a batch of a request that names no deadline. 0: none.", "", 0, 86400},
  {"batching.timeout_action", "batching-timeout-action", Type::kString, "reject", "What becomes of a request past its time: it ends, or goes behind the rest of its priority.", "reject|delay"},
  {"batching.weight", "batching-weight", Type::kFloat, "1", "Share of the device among one-shot models that all have work.", "", 0.001, 1000},

  {"repository.idle_timeout", "repository-idle-timeout", Type::kDuration, "0s", "A model without a request for this long gives its memory back until the next. 0: never.", "", 0, 1e9},
  {"repository.wait_max", "repository-wait-max", Type::kDuration, "30s", "Longest that a request waits for an evicted model to be brought back; then it is refused with Retry-After.", "", 0, 1e9},
  {"repository.memory", "repository-memory", Type::kBytes, "0", "Memory that models may take together: weights, and caches whose size engine.kv_cache gives. 0: memory_fraction of what is free at the start."},

  {"store.endpoint", "store-endpoint", Type::kString, "", "URL of an S3-compatible store. Empty: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, else Amazon's of the region."},
  {"store.region", "store-region", Type::kString, "", "Region of the store. Empty: AWS_REGION, AWS_DEFAULT_REGION, else us-east-1."},
  {"store.cache_dir", "store-cache-dir", Type::kString, "", "Folder of the files from stores. Empty: $XDG_CACHE_HOME/spillway/store or ~/.cache/spillway/store."},
  {"store.connections", "store-connections", Type::kInt, "8", "Connections to a store at once.", "", 1, 256},
  {"store.part_bytes", "store-part-bytes", Type::kBytes, "16MiB", "Range of a file that one request asks for.", "", 65536, 1e12},
  {"store.timeout", "store-timeout", Type::kDuration, "30s", "A store that sends nothing for this long is asked again.", "", 0.1, 3600},
  {"store.attempts", "store-attempts", Type::kInt, "5", "Times that one range is asked for before the download fails; what is on disk stays for the next.", "", 1, 100},

  {"gateway.policies", "gateway-policies", Type::kStrings, "", "Rules that order the upstreams, as policy specifications (docs/gateway.md). None: by weight.", "", 0, 0, true},
  {"gateway.retry_share", "gateway-retry-share", Type::kFloat, "0.2", "Further attempts that the whole fleet may make, for each request.", "", 0, 10, true},
  {"gateway.retry_floor", "gateway-retry-floor", Type::kFloat, "10", "Further attempts a second that are allowed besides.", "", 0, 1e6, true},
  {"gateway.attempts_max", "gateway-attempts-max", Type::kInt, "6", "Attempts that one request may make.", "", 1, 100, true},
  {"gateway.hedging", "gateway-hedging", Type::kBool, "true", "A request without a token after the measured p99 gets a second attempt elsewhere, within the retry budget.", "", 0, 0, true},
  {"gateway.request_timeout", "gateway-request-timeout", Type::kDuration, "10m", "Deadline of a request that names none.", "", 0.01, 86400, true},
  {"gateway.queue_requests_max", "gateway-queue-requests-max", Type::kInt, "1024", "Requests that may wait for an upstream.", "", 0, 1 << 20, true},
  {"gateway.queue_wait_max", "gateway-queue-wait-max", Type::kDuration, "60s", "Longest wait for an upstream.", "", 0, 86400, true},
  {"gateway.access_log", "gateway-access-log", Type::kString, "", "File for a line of JSON a request; \"-\": standard output. Empty: none.", "", 0, 0, true},
  {"gateway.aliases", "gateway-aliases", Type::kStrings, "", "Other names for models, each ALIAS=MODEL.", "", 0, 0, true},
  {"gateway.tenants", "gateway-tenants", Type::kString, "", "Where virtual keys are kept: a file for SQLite, or redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE] for many gateways. Empty: nobody needs one."},
  {"gateway.tenants_fail_open", "gateway-tenants-fail-open", Type::kBool, "false", "While Redis cannot be asked, count in this process alone instead of refusing with 503."},
  {"gateway.tenants_pepper", "gateway-tenants-pepper", Type::kString, "", "Secret that goes into the digests of virtual keys, as env:NAME or file:PATH. Empty: the store's own."},
  {"gateway.admin_key", "gateway-admin-key", Type::kString, "", "Key of the admin API, as env:NAME or file:PATH. Empty: there is no admin API."},
  {"gateway.cache_bytes", "gateway-cache-bytes", Type::kBytes, "0", "Memory for whole answers to requests that come again word for word. 0: none are kept.", "", 0, 1e12},
  {"gateway.cache_ttl", "gateway-cache-ttl", Type::kDuration, "5m", "How long such an answer is good.", "", 0.001, 31536000},
  {"gateway.cache_any_temperature", "gateway-cache-any-temperature", Type::kBool, "false", "Keep answers that were sampled, too."},
  {"gateway.coalesce_embeddings", "gateway-coalesce-embeddings", Type::kBool, "true", "Identical embeddings under way at the same time are asked for once."},
  {"gateway.discovery_interval", "gateway-discovery-interval", Type::kDuration, "5s", "How often upstreams with discovery are looked up.", "", 0.05, 86400},

  {"telemetry.interval", "telemetry-interval", Type::kDuration, "10s", "Hardware is read, and points are taken for the outlets, this often.", "", 0.1, 3600},
  {"telemetry.hardware", "telemetry-hardware", Type::kBool, "true", "Read GPUs (NVML, where it is installed) and the host."},
  {"telemetry.xids_ignored", "xids-ignored", Type::kInts, "13,31,43,45,68,109", "XIDs that are a program's fault. Any other, of a GPU that a model uses, makes /health fail until the program is started anew.", "", 0, 1e6},
  {"telemetry.dcgm_names", "dcgm-names", Type::kBool, "false", "Export GPU readings also under the names and units of NVIDIA's DCGM exporter."},
  {"telemetry.objective", "objective", Type::kFloat, "0.9999", "Share of generations that must be good; the error budget is the rest.", "", 0.5, 0.9999999},
  {"telemetry.objective_latency", "objective-latency", Type::kDuration, "0s", "A good generation's first token comes within this. 0: no matter.", "", 0, 3600},
  {"telemetry.feedback", "feedback", Type::kBool, "true", "Remember requests and take what came of them at POST /v1/feedback."},
  {"telemetry.feedback_requests_max", "feedback-requests-max", Type::kInt, "262144", "Requests that feedback can find; about 100 bytes each.", "", 1, 1 << 26},
  {"telemetry.feedback_dir", "feedback-dir", Type::kString, "", "Folder in which those requests are kept over restarts. Empty: in memory alone."},
  {"telemetry.feedback_late_after", "feedback-late-after", Type::kDuration, "24h", "Feedback that comes later is not counted.", "", 1, 1e7},
  {"telemetry.spool_dir", "spool-dir", Type::kString, "", "Folder of the write-ahead spool that outlets are fed from; needed when there is one."},
  {"telemetry.spool_bytes_max", "spool-bytes-max", Type::kBytes, "256MiB", "Size of the spool; past it the oldest points go.", "", 1 << 20},
  {"telemetry.spool_sync", "spool-sync", Type::kString, "interval", "When points are forced to the disk: at every append, once a second, or when the kernel likes. A dead process loses nothing with any.", "never|interval|always"},
  {"telemetry.drain_points_per_s", "drain-points-per-s", Type::kFloat, "50000", "Most points a second that are sent to one outlet.", "", 1, 1e9},
  {"telemetry.influxdb_url", "influxdb-url", Type::kString, "", "InfluxDB to write to, as http://host:8086. Empty: none."},
  {"telemetry.influxdb_api", "influxdb-api", Type::kString, "v1", "Its API: v1 has a database, v2 an organisation and a bucket.", "v1|v2"},
  {"telemetry.influxdb_database", "influxdb-database", Type::kString, "spillway", "Database (v1) or bucket (v2)."},
  {"telemetry.influxdb_org", "influxdb-org", Type::kString, "", "Organisation (v2)."},
  {"telemetry.influxdb_token", "influxdb-token", Type::kString, "", "Token (v2), or user:password (v1).", "", 0, 1e18, false, true},
  {"telemetry.remote_write_url", "remote-write-url", Type::kString, "", "Prometheus remote-write receiver, as http://host:9090/api/v1/write. Empty: none."},
  {"telemetry.remote_write_token", "remote-write-token", Type::kString, "", "Bearer token of the receiver.", "", 0, 1e18, false, true},
  {"telemetry.otlp_url", "otlp-url", Type::kString, "", "OpenTelemetry collector for traces, as http://host:4318/v1/traces. Empty: none."},
  {"telemetry.otlp_token", "otlp-token", Type::kString, "", "Bearer token of the collector.", "", 0, 1e18, false, true},

  {"log.level", "log-level", Type::kString, "info", "Least level that is logged.", "trace|debug|info|warn|error|off", 0, 0, true},
  {"log.format", "log-format", Type::kString, "text", "Shape of a log line.", "text|json"},
};
// clang-format on

// Keys of the file whose values are lists of maps, read by whom they are for; only a file can give them.
inline constexpr std::string_view kMapLists[] = {"gateway.upstreams", "models"};
bool is_map_list(std::string_view key);

inline constexpr size_t kOptionCount = sizeof(kOptions) / sizeof(kOptions[0]);

// An option in code, as a literal: Key<Type::kInt>("network.port"). An unknown key or another type does not compile.
template <Type type>
struct Key {
  size_t index = 0;
  consteval Key(const char* key) {
    while (index < kOptionCount && std::string_view(kOptions[index].key) != key) ++index;
    if (index == kOptionCount) throw "no such option";
    if (kOptions[index].type != type) throw "the option has another type";
  }
};

// Index of the key; kOptionCount when there is none.
size_t find_option(std::string_view key);

bool is_section(std::string_view name);

// "SPILLWAY_NETWORK_PORT" of "network.port".
std::string environment_name(const Option& option);

// "an integer from 0 to 65535", "one of fp32, bf16, int8, auto".
std::string describe_expected(const Option& option);

// Of the names in the table (keys, environment variables, flags), the one most like the text; empty when none is near.
std::string nearest_key(std::string_view text);
std::string nearest_environment_name(std::string_view text);
std::string nearest_flag(std::string_view text);  // without dashes

}  // namespace spillway::config
