// Numbers as people read them.

export function count(value) {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 1e9) return (value / 1e9).toFixed(2) + 'G';
  if (size >= 1e6) return (value / 1e6).toFixed(2) + 'M';
  if (size >= 1e4) return (value / 1e3).toFixed(1) + 'k';
  if (size >= 100 || Number.isInteger(value)) return Math.round(value).toString();
  return value.toFixed(size >= 10 ? 1 : 2);
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds === 0) return '0';
  if (seconds < 0.001) return (seconds * 1e6).toFixed(0) + ' µs';
  if (seconds < 0.1) return (seconds * 1e3).toFixed(1) + ' ms';
  if (seconds < 1) return (seconds * 1e3).toFixed(0) + ' ms';
  if (seconds < 60) return seconds.toFixed(seconds < 10 ? 2 : 1) + ' s';
  if (seconds < 3600) return Math.floor(seconds / 60) + ' min ' + Math.round(seconds % 60) + ' s';
  if (seconds < 86400) return Math.floor(seconds / 3600) + ' h ' + Math.round((seconds % 3600) / 60) + ' min';
  return Math.floor(seconds / 86400) + ' d ' + Math.round((seconds % 86400) / 3600) + ' h';
}

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) { value /= 1024; ++unit; }
  return (unit === 0 ? Math.round(value) : value.toFixed(value >= 100 ? 0 : 1)) + ' ' + units[unit];
}

export function percent(share) {
  return Number.isFinite(share) ? (share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0) + ' %' : '–';
}

// A metric by its unit.
export function measure(value, unit) {
  switch (unit) {
    case 'seconds': return duration(value);
    case 'bytes': return bytes(value);
    case 'ratio': return percent(value);
    case 'celsius': return value.toFixed(0) + ' °C';
    case 'watts': return value.toFixed(0) + ' W';
    case 'hertz': return count(value) + 'Hz';
    case 'joules': return count(value) + 'J';
    default: return count(value) + (unit ? ' ' + unit : '');
  }
}
