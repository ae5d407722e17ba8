// The library is fetched as text and run once per browser page: a static file may be served as text/plain, which a
// <script src> refuses. Plotly puts its style sheet into the document head, which a shadow root does not see: the
// component is therefore mounted without isolation.
const charts = new WeakMap();

function library(url) {
  if (window.Plotly && window.Plotly.react) return Promise.resolve(window.Plotly);
  if (!window.__explorerPlotly) {
    window.__explorerPlotly = fetch(new URL(url, document.baseURI)).then(answer => {
      if (!answer.ok) throw new Error(`plotly.js: ${answer.status}`);
      return answer.text();
    }).then(text => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.appendChild(script);
      return window.Plotly;
    });
  }
  return window.__explorerPlotly;
}

function dress(layout, node) {
  const style = getComputedStyle(node);
  const text = style.getPropertyValue("--st-text-color").trim() || style.color;
  const panel = style.getPropertyValue("--st-secondary-background-color").trim() || "#fff";
  layout.font = Object.assign({}, layout.font, { color: text, family: style.fontFamily });
  layout.hoverlabel = Object.assign({ bgcolor: panel, font: { color: text } }, layout.hoverlabel);
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,136,145,.8)", activecolor: text };
  return layout;
}

function plain(value) { return value === undefined || value === null ? null : (typeof value === "object" ? null : value); }

export default function ({ data, parentElement, setTriggerValue }) {
  const node = parentElement.querySelector(".plot");
  if (!node) return;
  if (!data.figure) {
    node.remove();
    library(data.library).catch(() => {});  // a chart will ask again and report it
    return;
  }
  let state = charts.get(parentElement);
  if (!state) { state = { figure: null, text: null }; charts.set(parentElement, state); }
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", data.alt);
  node.style.height = data.height + "px";
  const mode = getComputedStyle(node).getPropertyValue("--st-text-color");
  state.send = setTriggerValue;
  if (state.text !== data.figure || state.mode !== mode) {
    state.text = data.figure; state.mode = mode;
    library(data.library).then(Plotly => {
      if (state.text !== data.figure || state.gone) return;
      const figure = JSON.parse(data.figure);
      node.querySelector(".waiting")?.remove();
      const layout = dress(figure.layout, node);
      layout.autosize = true;
      const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"],
                       toImageButtonOptions: { format: "svg", filename: data.name } };
      const drawn = state.figure ? Plotly.react(node, figure.data, layout, config)
                                 : Plotly.newPlot(node, figure.data, layout, config);
      const first = !state.figure;
      state.figure = figure;
      drawn.then(() => {
        node.dataset.painted = String(Number(node.dataset.painted || 0) + 1);
        if (first) {
          node.on("plotly_click", event => {
            const point = event.points[0];
            state.send("clicked", { x: plain(point.x), y: plain(point.y), z: plain(point.z),
              curve: point.curveNumber, custom: point.customdata === undefined ? null : point.customdata, n: Date.now() });
          });
        }
      });
    }).catch(error => { node.textContent = "The chart could not be drawn: " + error.message; });
  }
  return () => { state.gone = true; if (state.figure && window.Plotly) window.Plotly.purge(node); };
}
