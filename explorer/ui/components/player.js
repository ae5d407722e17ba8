const states = new WeakMap();
export default function ({ data, parentElement }) {
  const find = css => parentElement.querySelector(css);
  const record = JSON.parse(data.record), T = record.z.length;
  const [button, slider] = [find("button"), find("input")];
  const state = states.get(parentElement) || { t: T, timer: null };
  states.set(parentElement, state);
  const number = x => (Math.abs(x) >= 100 ? x.toFixed(1) : x.toPrecision(4));
  slider.min = 1; slider.max = T; state.t = Math.min(state.t, T);
  const high = Math.max(...record.scores.flat(), 1e-9), low = Math.min(...record.scores.flat(), 0);
  function show() {
    const t = state.t, i = t - 1, before = i ? record.v[i - 1] : record.v0;
    slider.value = t; find(".time").textContent = `t = ${t} of ${T}`;
    let n = 0; for (let k = 0; k <= i; k++) n += record.z[k];
    find(".equation").textContent =
      `v(${t - 1}) + x(${t}) = ${number(before)} + ${number(record.x[i])} = ${number(record.before[i])}` +
      ` ${record.z[i] ? "\u2265" : "<"} \u03b8 = ${number(record.theta)}   \u2192   ${record.z[i] ? "spike" : "silent"}\n` +
      `v(${t}) = ${number(record.v[i])}     n = ${n}     \u00e2 = \u03b8 n / t = ${number(record.theta * n / t)}     a = ${number(record.a)}`;
    const scores = record.scores[i], best = scores.indexOf(Math.max(...scores));
    find(".scores").replaceChildren(...scores.map((score, k) => {
      const row = document.createElement("div"); row.className = "row" + (k === best ? " best" : "");
      const name = document.createElement("span"); name.textContent = record.classes[k];
      const bar = document.createElement("div"); bar.className = "bar";
      bar.style.width = `${100 * (score - low) / (high - low)}%`;
      const value = document.createElement("span"); value.textContent = score.toFixed(2);
      row.append(name, bar, value); return row;
    }));
  }
  function pause() { clearInterval(state.timer); state.timer = null; button.textContent = "Play"; }
  button.onclick = () => {
    if (state.timer) return pause();
    if (state.t >= T) { state.t = 1; show(); }
    button.textContent = "Pause";
    state.timer = setInterval(() => { if (state.t >= T) return pause(); state.t += 1; show(); }, 160);
  };
  slider.oninput = () => { pause(); state.t = Number(slider.value); show(); };
  show();
  return () => clearInterval(state.timer);
}
