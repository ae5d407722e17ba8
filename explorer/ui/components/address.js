export default function ({ data }) {
  const url = new URL(window.location.href);
  for (const [name, value] of Object.entries(data.query)) {
    if (value && value !== data.plain) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  if (url.href === window.location.href) return;
  try { window.history.replaceState(window.history.state, "", url); } catch { /* embedded where that is forbidden */ }
}
