const timers = new WeakMap();
export default function ({ data, parentElement, setTriggerValue }) {
  const bank = parentElement.querySelector(".bank");
  if (bank.children.length !== data.names.length || bank.dataset.names !== data.names.join()) {
    bank.dataset.names = data.names.join();
    bank.replaceChildren(...data.names.map((name, i) => {
      const band = document.createElement("div"); band.className = "band";
      const value = document.createElement("span"); value.className = "value";
      const input = document.createElement("input"); input.type = "range";
      const label = document.createElement("span"); label.className = "name"; label.textContent = name; label.title = name;
      input.setAttribute("aria-label", `${data.what} of ${name}`);
      band.append(value, input, label);
      return band;
    }));
  }
  [...bank.children].forEach((band, i) => {
    const [value, input] = band.children;
    input.min = data.low; input.max = data.high; input.step = data.step;
    const held = (parentElement.activeElement || document.activeElement) === input && timers.get(input);
    if (!held) input.value = data.values[i];
    value.textContent = Number(input.value).toFixed(2);
    band.classList.toggle("changed", data.changed[i]);
    const send = () => setTriggerValue("moved", { site: data.names[i], value: Number(input.value), n: Date.now() });
    input.oninput = () => {
      value.textContent = Number(input.value).toFixed(2);
      if (timers.get(input)) return;
      timers.set(input, setTimeout(() => { timers.set(input, null); send(); }, 90));
    };
  });
}
