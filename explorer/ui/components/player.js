// One clock for the page: charts of time show where the player stands, and a click in one of them moves the player there.
const CLOCK = "explorer:clock", states = new WeakMap();
export default function ({ data, parentElement }) {
  const find = css => parentElement.querySelector(css);
  const record = JSON.parse(data.record), T = record.z.length;
  const [button, slider] = [find("button"), find("input")];
  const state = states.get(parentElement) || { t: T, timer: null };
  states.set(parentElement, state);
  const number = x => (Math.abs(x) >= 100 ? x.toFixed(1) : x.toPrecision(4)).replace("-", "\u2212");
  find(".what").textContent = record.name;
  find(".what").style.borderColor = record.colour;
  slider.min = 1; slider.max = T; state.t = Math.min(state.t, T);
  const all = record.scores.flat().filter(score => score !== null);
  const high = Math.max(...all, 1e-9), low = Math.min(...all, 0);
  function show() {
    const t = state.t, i = t - 1, before = i ? record.v[i - 1] : record.v0;
    const grown = record.stretches && i > 0, held = grown ? record.held[i] : before;
    const past = !grown ? `v(${t - 1})` : record.v0
      ? `v(0) + ${t}/${t - 1} (v(${t - 1}) \u2212 v(0))` : `${t}/${t - 1} v(${t - 1})`;
    window.__explorerClock = t;
    window.dispatchEvent(new CustomEvent(CLOCK, { detail: { t } }));
    slider.value = t; find(".time").textContent = `t = ${t} of ${T}`;
    let n = 0; for (let k = 0; k <= i; k++) n += record.z[k];
    const plain = record.theta * n / t, decoded = record.decoded[i], z = record.z[i];
    const size = record.sized ? ` of ${Math.abs(z) === 1 ? "" : Math.abs(z) + "\u202f"}\u03b8` : "";
    const told = z < 0 ? `takes a spike${size} back` : !z ? "silent" : record.muted ? "fires, but is muted: nothing is sent"
      : z > 1 && !size ? `${z} spikes` : `spike${size}`;
    const formula = !record.stretches && Math.abs(plain - decoded) <= 1e-4 * record.theta ? "\u03b8 n / t = " : "";
    find(".equation").textContent = (record.later
      ? `sending step ${t}: ${number(before)} is left to send   \u2192   ${told}\n`
      : `${past} + x(${t}) = ${number(held)} + ${number(record.x[i])} = ${number(record.before[i])}` +
        ` ${z > 0 ? "\u2265" : "<"} ${record.level} = ${number(record.fires)}   \u2192   ${told}\n`) +
      `v(${t}) = ${number(record.v[i])}${record.stretches ? "" : `     n = ${n}`}     \u00e2 = ${formula}${number(decoded)}     a = ${number(record.a)}`;
    const answer = record.scores[i], scores = answer || record.classes.map(() => 0);
    const best = answer ? scores.indexOf(Math.max(...scores)) : -1;
    find(".scores").replaceChildren(...scores.map((score, k) => {
      const row = document.createElement("div"); row.className = "row" + (k === best ? " best" : "");
      const name = document.createElement("span"); name.textContent = record.classes[k];
      const lane = document.createElement("div"), bar = document.createElement("div");
      lane.className = "lane"; bar.className = "bar"; bar.style.background = record.colour; lane.append(bar);
      bar.style.left = `${100 * (Math.min(score, 0) - low) / (high - low)}%`;
      bar.style.width = `${100 * Math.abs(score) / (high - low)}%`;
      const value = document.createElement("span");
      value.textContent = answer ? score.toFixed(2).replace("-", "\u2212") : "\u2013";
      row.append(name, lane, value); return row;
    }));
  }
  function pause() { clearInterval(state.timer); state.timer = null; button.textContent = "Play"; }
  function go(t) { pause(); state.t = Math.min(Math.max(t, 1), T); show(); }
  function toggle() {
    if (state.timer) return pause();
    if (state.t >= T) { state.t = 1; show(); }
    button.textContent = "Pause";
    state.timer = setInterval(() => { if (state.t >= T) return pause(); state.t += 1; show(); }, 160);
  }
  const jumps = { ArrowLeft: () => state.t - 1, ArrowRight: () => state.t + 1, Home: () => 1, End: () => T };
  button.onclick = toggle;
  slider.oninput = () => go(Number(slider.value));
  find(".player").onkeydown = event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " " && event.target !== button) { event.preventDefault(); toggle(); }
    if (jumps[event.key] && event.target !== slider) { event.preventDefault(); go(jumps[event.key]()); }
  };
  const asked = event => { if (event.detail.to) go(event.detail.to); };
  window.removeEventListener(CLOCK, state.asked);
  window.addEventListener(CLOCK, state.asked = asked);
  show();
  return () => { clearInterval(state.timer); window.removeEventListener(CLOCK, asked); };
}
