// The page at `/status`: asks for the figures every two seconds and draws them.
// Counts are since the server started; what a second brought is the difference of two answers.

const EVERY_MS = 2000;
const KEPT = 90; // number of differences: three minutes
const ROUTES = ["thumb", "derivative", "stream", "tile", "none"];
const find = (selector) => document.querySelector(selector);
const history = []; // {seconds, routes: {route: answers}} for each interval
let before = null;

function make(name, attributes = {}, ...inside) {
  const svg = ["svg", "path", "rect", "circle", "line", "text", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

const sum = (values) => values.reduce((all, it) => all + it, 0);
const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
const percent = (share) => (share > 0.99 && share < 1 ? `${(Math.floor(share * 10000) / 100).toFixed(2)} %` : `${number(100 * share)} %`);
const time = (s) => (s < 0.9995 ? `${number(1000 * s)} ms` : `${number(s)} s`);
function size(bytes) {
  const power = Math.min(4, Math.floor(Math.log2(bytes || 1) / 10));
  return `${number(bytes / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}
const list = (counts) => Object.entries(counts).map(([name, count]) => `${number(count)} ${name}`).join(", ");

// Where that share of a histogram ends, between the bounds of its bucket
function quantile(latency, share) {
  let left = share * sum(latency.map(([, count]) => count));
  let lower = 0;
  for (const [upper, count] of latency) {
    if (count && left <= count) return upper === null ? lower : lower + ((upper - lower) * left) / count;
    left -= count;
    lower = upper ?? lower;
  }
  return null;
}

const added = (histograms) =>
  histograms.reduce((all, one) => (all.length ? all.map(([bound, count], n) => [bound, count + one[n][1]]) : one), []);

// Pictures

function bars(svg, latency, height, labels) {
  const most = Math.max(1, ...latency.map(([, count]) => count));
  const width = 100 / (latency.length || 1);
  svg.setAttribute("viewBox", `0 0 300 ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren(
    make("line", { class: "rule", x1: 0, x2: 300, y1: height, y2: height }),
    ...latency.map(([bound, count], n) => {
      const tall = count ? Math.max(2, (count / most) * (height - 2)) : 0;
      const place = { x: 3 * width * n + 1, y: height - tall, width: 3 * width - 2, height: tall };
      return make("rect", { class: "bar", ...place }, make("title", {}, `${bound === null ? "longer" : `up to ${time(bound)}`}: ${number(count)}`));
    }),
  );
  labels?.replaceChildren(...latency.map(([bound]) => make("span", {}, bound === null ? "…" : time(bound))));
}

function flow(svg) {
  const [width, height] = [900, 240];
  const rates = history.map(({ seconds, routes }) => ROUTES.map((route) => (routes[route] ?? 0) / seconds));
  const top = nice(Math.max(1, ...rates.map(sum)));
  const x = (n) => width - ((rates.length - 1 - n) * width) / (KEPT - 1);
  const y = (value) => height - (value / top) * height;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  const floor = rates.map(() => 0);
  const areas = ROUTES.map((route, nth) => {
    const under = rates.map((_, n) => `${x(n)},${y(floor[n])}`).reverse();
    rates.forEach((rate, n) => (floor[n] += rate[nth]));
    const over = rates.map((_, n) => `${x(n)},${y(floor[n])}`);
    return make("path", { class: "area", "data-route": route, d: rates.length > 1 ? `M${[...over, ...under].join("L")}Z` : "" });
  });
  const rules = [0, 0.5, 1].map((share) => make("line", { class: "rule", x1: 0, x2: width, y1: y(share * top), y2: y(share * top) }));
  svg.replaceChildren(...rules, ...areas);
  find("#span").textContent = `the top line is ${number(top)} a second; the width, ${(KEPT * EVERY_MS) / 60000} minutes`;
}

function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

function donut(svg, parts) {
  const all = sum(parts.map(([, count]) => count));
  const around = 2 * Math.PI * 40;
  let turned = 0;
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.replaceChildren(
    make("circle", { class: "whole", cx: 50, cy: 50, r: 40 }),
    ...parts.map(([how, count]) => {
      const length = all ? (count / all) * around : 0;
      const dashes = { "stroke-dasharray": `${length} ${around}`, "stroke-dashoffset": -turned };
      turned += length;
      return make("circle", { class: "slice", "data-how": how, cx: 50, cy: 50, r: 40, transform: "rotate(-90 50 50)", ...dashes });
    }),
    make("text", { class: "middle", x: 50, y: 56 }, all ? percent(1 - (Object.fromEntries(parts).fetched ?? 0) / all) : "–"),
  );
}

// Parts of the page

function now(told, latest) {
  const routes = Object.values(told.routes);
  const answers = sum(routes.map((it) => it.answers));
  const failed = sum(routes.flatMap((it) => Object.entries(it.statuses).map(([status, count]) => (status[0] === "5" ? count : 0))));
  const p95 = quantile(added(routes.map((it) => it.latency)), 0.95);
  find("#rate").textContent = latest ? number(sum(Object.values(latest.routes)) / latest.seconds) : "–";
  find("#p95").textContent = p95 === null ? "–" : time(p95);
  find("#good").textContent = answers ? percent(1 - failed / answers) : "–";
  find("#gets").textContent = answers ? number(told.store.gets / answers) : "–";
  find("#decoders").textContent = number(told.decoders.up);
  find("#decoders").dataset.state = told.decoders.up ? "" : "bad";
  find("#lag").textContent = time(told.loop_lag_s);
  find("#lag").dataset.state = told.loop_lag_s < 1 ? "" : "bad";
}

function routes(told) {
  const known = ROUTES.filter((route) => told.routes[route]);
  find("#flow .legend").replaceChildren(
    ...known.map((route) => make("li", { "data-route": route }, `${route === "none" ? "info.json and errors" : route} `, make("b", {}, number(told.routes[route].answers)))),
  );
  find("#routes div").replaceChildren(
    ...known.map((route) => {
      const { answers, latency } = told.routes[route];
      const picture = make("svg", { role: "img", "aria-label": `Latency of ${route}` });
      bars(picture, latency, 40);
      const half = quantile(latency, 0.5), most = quantile(latency, 0.99);
      const words = make("div", {}, make("h3", {}, route === "none" ? "no route" : route), make("p", {}, `${number(answers)} answers`));
      const times = make("div", {}, picture, make("p", {}, half === null ? "" : `half within ${time(half)}, 99 % within ${time(most)}`));
      return make("article", { class: "way", "data-route": route }, words, times);
    }),
  );
}

function store({ gets, bytes, errors, latency }) {
  bars(find("#store svg"), latency, 130);
  const half = quantile(latency, 0.5), most = quantile(latency, 0.99);
  const times = half === null ? "" : `Half within ${time(half)}, 99 % within ${time(most)}. `;
  find("#store svg").toggleAttribute("hidden", half === null);
  if (half === null) return (find("#store .note").textContent = `${number(gets)} reads, ${size(bytes)}. Answers of object stores are timed, those of a folder are not.`);
  find("#store .note").textContent = `${times}${number(gets)} GETs, ${size(bytes)}. ${list(errors) || "No errors"}.`;
}

function lanes(told) {
  find("#lanes div").replaceChildren(
    ...Object.entries(told.lanes).map(([lane, { running, waiting, refused }]) => {
      const picture = make("svg", { viewBox: "0 0 200 16", preserveAspectRatio: "xMinYMid meet", role: "img", "aria-label": `${running} running, ${waiting} waiting` });
      for (let n = 0; n < Math.min(running + waiting, 14); n += 1)
        picture.append(make("circle", { class: n < running ? "running" : "waiting", cx: 8 + 14 * n, cy: 8, r: 5 }));
      return make("article", { class: "lane" }, make("b", {}, lane), picture, make("span", {}, `${number(running)} run, ${number(waiting)} wait, ${number(refused)} refused`));
    }),
  );
  const { jobs, quarantines, sandbox } = told.decoders;
  const held = Object.keys(sandbox).filter((layer) => sandbox[layer]), missing = Object.keys(sandbox).filter((layer) => !sandbox[layer]);
  const walls = `Sandbox: ${held.join(", ") || "none"}${missing.length ? `; without ${missing.join(", ")}` : ""}.`;
  find("#lanes .note").textContent = `${list(jobs) || "No jobs yet"}. ${number(quarantines)} masters quarantined. ${walls}`;
}

function volume(told) {
  const parts = ["hit", "waited", "fetched"].map((how) => [how, told.volume.blocks[how] ?? 0]);
  const words = { hit: "on disk already", waited: "fetched by another request", fetched: "fetched from the store" };
  donut(find("#volume svg"), parts);
  find("#volume .legend").replaceChildren(...parts.map(([how, count]) => make("li", { "data-how": how }, `${words[how]} `, make("b", {}, number(count)))));
  const { bytes, evictions, faults } = told.volume;
  find("#volume .note").textContent = `${size(bytes)} of ${size(told.volume_size)} taken. ${number(evictions)} evictions. ${list(faults) || "No faults"}.`;
}

function slowest(rows) {
  const most = Math.max(1, ...rows.map((it) => it.ms));
  find("#slowest tbody").replaceChildren(
    ...rows.map(({ ms, path, route, status, at }) =>
      make("tr", { "data-route": route || "none" },
        make("td", { class: "ms" }, make("meter", { max: most, value: ms }), time(ms / 1000)),
        make("td", { class: "route" }, route || "none"),
        make("td", {}, String(status)),
        make("td", { class: "path", title: path }, path),
        make("td", {}, new Date(1000 * at).toLocaleTimeString()),
      ),
    ),
  );
  find("#slowest .note").textContent = rows.length ? "" : "Nothing has been asked for yet.";
}

async function look() {
  const pulse = find("#pulse");
  try {
    const response = await fetch("status/figures.json");
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    const told = { at: performance.now() / 1000, ...(await response.json()) };
    if (before) {
      const gone = ([route, { answers }]) => [route, Math.max(0, answers - (before.routes[route]?.answers ?? 0))];
      history.push({ seconds: told.at - before.at, routes: Object.fromEntries(Object.entries(told.routes).map(gone)) });
      if (history.length > KEPT) history.shift();
    }
    before = told;
    find("#about").textContent = `${told.source} · version ${told.version} · ${told.workers} server ${told.workers === 1 ? "process" : "processes"}`;
    now(told, history.at(-1));
    flow(find("#flow svg"));
    routes(told);
    store(told.store);
    lanes(told);
    volume(told);
    slowest(told.slowest);
    pulse.dataset.state = "";
    pulse.textContent = `as of ${new Date().toLocaleTimeString()}`;
    find("main").ariaBusy = false;
  } catch (problem) {
    pulse.dataset.state = "lost";
    pulse.textContent = `no figures: ${problem.message}`;
  }
}

look();
setInterval(look, EVERY_MS);
