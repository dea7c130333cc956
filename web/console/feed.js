// The live state from the server: once with its history, then frame by frame. Keys stay in this tab.

const listeners = new Set();
export const state = {frame: null, history: null, configuration: [], connected: false, paused: false, frames: 0};

export const keys = {
  get admin() { return sessionStorage.getItem('admin') || ''; },
  get api() { return sessionStorage.getItem('api') || this.admin; },
  set(admin, api) {
    sessionStorage.setItem('admin', admin);
    sessionStorage.setItem('api', api);
  },
};

export function listen(listener) { listeners.add(listener); }
function tell(what) { for (const listener of listeners) listener(what); }

export function headers(key) { return key ? {Authorization: 'Bearer ' + key} : {}; }

export async function fetchJson(path) {
  const response = await fetch(path, {headers: headers(keys.admin)});
  if (!response.ok) throw Object.assign(new Error(response.statusText), {status: response.status});
  return response.json();
}

// Lines of a stream of server-sent events, as (data) calls.
export async function readEvents(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf('\n\n')) >= 0) {
      const event = rest.slice(0, end);
      rest = rest.slice(end + 2);
      const data = event.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5).trimStart());
      if (data.length) take(data.join('\n'));
    }
  }
}

function takeFrame(frame) {
  state.frame = frame;
  ++state.frames;
  const {history} = state;
  const second = frame.second;
  if (history && second && second.number > history.number && second.column.length) {
    history.number = second.number;
    history.columns.push(second.column);
    history.seconds.push(second);
    if (history.columns.length > 180) { history.columns.shift(); history.seconds.shift(); }
  }
  if (!state.paused) tell('frame');
}

async function follow() {
  const whole = await fetchJson('/console/api/state');
  state.history = whole.history;
  state.configuration = whole.configuration;
  tell('whole');
  const response = await fetch('/console/api/events', {headers: headers(keys.admin)});
  if (!response.ok) throw Object.assign(new Error(response.statusText), {status: response.status});
  state.connected = true;
  tell('connection');
  await readEvents(response, (data) => takeFrame(JSON.parse(data)));
}

let wake = () => {};
export function reconnect() { wake(); }

export async function run() {
  for (let pause = 250;; pause = Math.min(pause * 2, 5000)) {
    let status = 0;
    try {
      await follow();
      pause = 250;
    } catch (error) {
      status = error.status || 0;
    }
    if (state.connected) pause = 250;
    state.connected = false;
    tell(status === 401 || status === 403 ? 'key' : 'connection');
    await new Promise((resolve) => {
      wake = resolve;
      if (status !== 401 && status !== 403) setTimeout(resolve, pause);
    });
  }
}
