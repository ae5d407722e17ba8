// The library is fetched as text and run once per browser page: a static file may be served as text/plain, which a
// <script src> refuses. Plotly puts its style sheet into the document head, which a shadow root does not see: the
// component is therefore mounted without isolation.
const charts = new WeakMap();

function libraryText(url) {
  if (!window.__explorerPlotlyText) {
    window.__explorerPlotlyText = fetch(new URL(url, document.baseURI)).then(answer => {
      if (!answer.ok) throw new Error(`plotly.js: ${answer.status}`);
      return answer.text();
    });
    window.__explorerPlotlyText.catch(() => { window.__explorerPlotlyText = null; });
  }
  return window.__explorerPlotlyText;
}

function library(url) {
  if (window.Plotly && window.Plotly.react) return Promise.resolve(window.Plotly);
  if (!window.__explorerPlotly) {
    window.__explorerPlotly = libraryText(url).then(text => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.appendChild(script);
      return window.Plotly;
    });
    window.__explorerPlotly.catch(() => { window.__explorerPlotly = null; });
  }
  return window.__explorerPlotly;
}

function dress(layout, node) {
  const style = getComputedStyle(node);
  const text = style.getPropertyValue("--st-text-color").trim() || style.color;
  const panel = style.getPropertyValue("--st-secondary-background-color").trim() || "#fff";
  layout.font = Object.assign({}, layout.font, { color: text, family: style.fontFamily });
  layout.hoverlabel = Object.assign({ bgcolor: panel, font: { color: text } }, layout.hoverlabel);
  if (node.clientWidth < 520) {  // on a phone the toolbar gets a row of its own above the legend
    layout.margin = Object.assign({}, layout.margin, { t: ((layout.margin || {}).t ?? 34) + 34 });
  }
  layout.modebar = { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,136,145,.8)", activecolor: text };
  return layout;
}

// The player's clock (player.js): a line where it stands, drawn over the chart so that zoom and traces stay untouched.
const CLOCK = "explorer:clock";

function standAt(node, t) {
  const layout = node._fullLayout;
  if (!layout || !t) return;
  let line = node.querySelector(".playhead");
  if (!line) { line = document.createElement("div"); line.className = "playhead"; node.append(line); }
  const x = layout.xaxis.d2p(t), { l, t: top, h } = layout._size;
  line.hidden = !(x >= 0 && x <= layout.xaxis._length);
  Object.assign(line.style, { left: `${l + x - 1}px`, top: `${top}px`, height: `${h}px` });
}

function plain(value) { return value === undefined || value === null ? null : (typeof value === "object" ? null : value); }

// Files to take away. Each carries its title and the settings it was made with, and is drawn dark on white: paper and
// slides are white, whatever the page is. What the visitor zoomed and hid stays so.

function wrapped(text, characters) {
  const lines = [""];
  for (const word of text.split(" ")) {
    if (lines[lines.length - 1].length + word.length > characters) lines.push("");
    lines[lines.length - 1] += (lines[lines.length - 1] ? " " : "") + word;
  }
  return lines;
}

function escaped(text) { return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); }

function figureToKeep(node, data, headed) {
  const figure = JSON.parse(data.figure);
  figure.data.forEach((trace, i) => { if (node.data[i]?.visible !== undefined) trace.visible = node.data[i].visible; });
  const layout = JSON.parse(JSON.stringify(node.layout)), width = Math.max(node.clientWidth, 480);
  layout.font = Object.assign({}, layout.font, { color: "#222222", family: "Arial, sans-serif" });
  delete layout.hoverlabel; delete layout.modebar;
  layout.paper_bgcolor = layout.plot_bgcolor = "#ffffff";
  let height = node.clientHeight;
  if (headed) {
    const title = wrapped(data.alt, width / 8), note = wrapped(data.note, width / 6.2);
    const room = 19 * title.length + 15 * note.length + 24;
    layout.title = { text: title.map(escaped).join("<br>") + '<br><span style="font-size:11px">' +
                     note.map(escaped).join("<br>") + "</span>",
                     x: 0, xref: "container", xanchor: "left", y: 1, yref: "container", yanchor: "top",
                     pad: { l: 12, t: 20 }, font: { size: 14 } };
    layout.title.automargin = false;
    layout.margin = Object.assign({}, layout.margin, { t: ((layout.margin || {}).t ?? 40) + room });
    height += room;
  }
  return { data: figure.data, layout, width, height };
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function exportImage(node, data, format) {
  const { width, height, ...figure } = figureToKeep(node, data, true);
  const scale = format === "png" ? 2 : 1;
  return window.Plotly.downloadImage(figure, { format, width, height, scale, filename: data.name });
}

async function exportHtml(node, data) {
  const { height, ...figure } = figureToKeep(node, data, false);
  const text = (await libraryText(data.library)).replace(/<\/script/gi, "<\\/script");
  const json = JSON.stringify({ data: figure.data, layout: figure.layout }).replace(/</g, "\\u003c");
  const link = data.view ? `<p>The same view: add <code>${escaped(data.view)}</code> to the address of the app.</p>` : "";
  save(new Blob([`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${escaped(data.alt)}</title>
<style>body{font-family:Arial,sans-serif;color:#222;margin:24px;max-width:1100px}h1{font-size:18px}p{font-size:13px}
code{word-break:break-all}</style></head>
<body><h1>${escaped(data.alt)}</h1><p>${escaped(data.note)}</p>
<div id="figure" style="height:${height}px"></div>${link}
<script>${text}</script>
<script>const figure = ${json};
figure.layout.autosize = true; delete figure.layout.width;
Plotly.newPlot("figure", figure.data, figure.layout, { responsive: true, displaylogo: false });</script>
</body></html>`], { type: "text/html" }), data.name + ".html");
}

const FILES = {
  png: { title: "PNG image", letter: "PNG", make: (node, data) => exportImage(node, data, "png") },
  svg: { title: "SVG drawing", letter: "SVG", make: (node, data) => exportImage(node, data, "svg") },
  html: { title: "Web page that needs nothing else (HTML)", letter: "HTML", make: exportHtml },
};

function buttons(state) {
  return Object.entries(FILES).map(([kind, file]) => ({
    name: kind,
    title: `${file.title} (key ${kind[0]})`,
    icon: { width: 34, height: 20, svg: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 34 20" width="34" height="20">` +
            `<text x="17" y="15" text-anchor="middle" font-family="Arial,sans-serif" font-weight="700" font-size="13"` +
            ` fill="#808891" textLength="32" lengthAdjust="spacingAndGlyphs">${file.letter}</text></svg>` },
    click: node => file.make(node, state.data),
  }));
}

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
  node.setAttribute("role", "group");  // it holds buttons, which an image may not
  node.setAttribute("aria-roledescription", "chart");
  node.setAttribute("aria-label", data.alt);
  node.style.height = data.height + "px";
  const mode = getComputedStyle(node).getPropertyValue("--st-text-color");
  state.send = setTriggerValue;
  state.data = data;
  node.onkeydown = event => {
    const kind = Object.keys(FILES).find(kind => kind[0] === event.key);
    if (kind && state.figure && event.target === node && !event.ctrlKey && !event.metaKey && !event.altKey) {
      FILES[kind].make(node, state.data);
    }
  };
  if (state.text !== data.figure || state.mode !== mode) {
    state.text = data.figure; state.mode = mode;
    library(data.library).then(Plotly => {
      if (state.text !== data.figure || state.gone) return;
      const figure = JSON.parse(data.figure);
      node.querySelector(".waiting")?.remove();
      const layout = dress(figure.layout, node);
      layout.autosize = true;
      // The same object every time: Plotly draws anew, and forgets the zoom, when a configuration differs.
      state.config ??= { responsive: true, displaylogo: false, modeBarButtonsToAdd: buttons(state),
                         modeBarButtonsToRemove: ["select2d", "lasso2d", "toImage", "sendChartToCloud"] };
      const drawn = state.figure ? Plotly.react(node, figure.data, layout, state.config)
                                 : Plotly.newPlot(node, figure.data, layout, state.config);
      const first = !state.figure;
      state.figure = figure;
      drawn.then(() => {
        node.dataset.painted = String(Number(node.dataset.painted || 0) + 1);
        if (first && data.time) {
          const follow = event => {
            if (state.gone) window.removeEventListener(CLOCK, follow);
            else standAt(node, event.detail.t);
          };
          window.addEventListener(CLOCK, follow);
          node.on("plotly_afterplot", () => standAt(node, window.__explorerClock));
          node.on("plotly_click", event => {
            const to = Math.round(event.points[0].x);
            window.dispatchEvent(new CustomEvent(CLOCK, { detail: { to } }));
          });
        }
        if (data.time) standAt(node, window.__explorerClock);
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
  // Streamlit also calls this when it starts the component anew in the same place, at times after the new call: only a
  // chart that has left the page is cleared away.
  return () => setTimeout(() => {
    if (node.isConnected) return;
    state.gone = true;
    if (state.figure && window.Plotly) window.Plotly.purge(node);
  });
}
