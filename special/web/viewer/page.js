// The page at `/`: a gallery, a deep-zoom viewer, and what each request cost.
// All costs come from the Server-Timing header of each image, as the browser hands it on.

import { loggedIn, probed, sentence, waysIn } from "./login.js";

const find = (selector) => document.querySelector(selector);
const ROUTES = ["thumb", "derivative", "stream", "tile", "failed"];
const images = new Map(); // identifier -> path of its image service
let following = ""; // where the gallery's next page starts; null after the last
let listing = true;
let current = null; // the identifier that is being read; null in the gallery
let loaded = []; // one record for each request for pixels that this view made
let viewer = null;

function report(problem) {
  find("#problem").textContent = problem?.message ?? problem ?? "";
  find("#problem").hidden = !problem;
}

async function get(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error((await response.text()).trim() || `${url}: ${response.status}`);
  return response;
}

const ask = async (url) => (await get(url)).json();

// Gallery

async function more() {
  const page = await ask(`viewer/images.json?${new URLSearchParams({ after: following })}`);
  page.images.forEach(addCard);
  ({ next: following, listing } = page);
  find("#more").hidden = following === null;
  filter();
}

function addCard({ id, path }) {
  images.set(id, path);
  const card = find("#card").content.cloneNode(true).firstElementChild;
  const picture = card.querySelector("img");
  card.id = `card ${id}`;
  card.querySelector("a").href = `#${encodeURIComponent(id)}`;
  card.querySelector("span").textContent = card.querySelector("span").title = id;
  picture.addEventListener("error", () => get(picture.src).catch((problem) => {
    picture.parentNode.dataset.route = "failed";
    picture.replaceWith(Object.assign(document.createElement("p"), { textContent: problem.message }));
  }));
  picture.src = `${path}/full/!240,240/0/default.jpg`;
  find("#cards").append(card);
}

const wanted = () => find("header input").value.trim();

function filter() {
  const shown = [...find("#cards").children].filter((card) => {
    card.hidden = !card.id.toLowerCase().includes(wanted().toLowerCase(), "card ".length);
    return !card.hidden;
  });
  find("#note").hidden = shown.length > 0;
  find("#note").textContent = wanted()
    ? `None of the images shown is called “${wanted()}”. Press Enter to open it as an identifier.`
    : listing
      ? "There are no images here yet.\nPut some into the source, then load this page again."
      : "This source is not listed.\nType an image's identifier above and press Enter, or ask for /iiif/3/{identifier}/info.json. " +
        "An identifier is the name of an object below the source. To list them here, start the server with SPECIAL_GALLERY=true.";
  return shown;
}

// Deep zoom

let library = null;
const loadLibrary = () =>
  (library ??= new Promise((resolve, reject) => {
    const script = document.importNode(find("#library").content.firstElementChild, true);
    script.onload = resolve;
    script.onerror = () =>
      reject(new Error(`OpenSeadragon could not be loaded from ${script.src}. The server can give it: --viewer-assets DIR.`));
    document.head.append(script);
  }));

async function open(id) {
  const path = images.get(id) ?? (await ask(`viewer/images.json?${new URLSearchParams({ id })}`)).images[0].path;
  const info = await ask(`${path}/info.json`);
  if (id !== current) return; // something else was opened meanwhile
  info.id = new URL(path, location).href; // ask the server that gave this page, whatever its public name
  show(true);
  describe(id, info);
  offer(waysIn(info)[0]).catch(report);
  try {
    await loadLibrary();
  } catch (problem) {
    report(problem);
    find("#canvas").replaceChildren(Object.assign(new Image(), { src: `${path}/full/!1600,1600/0/default.jpg`, alt: id }));
    return;
  }
  if (id !== current) return;
  viewer ??= zoomable();
  find("#stage").ariaBusy = true;
  viewer.open(info);
  viewer.canvas.focus();
}

function zoomable() {
  const made = OpenSeadragon({
    element: find("#canvas"),
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: true,
    navigatorAutoFade: false,
    navigatorOpacity: 1,
    maxZoomPixelRatio: 4,
    minZoomImageRatio: 0.3,
    imageLoaderLimit: 4,
    tileRetryMax: 3, // a busy server asks to be asked again after a second
    tileRetryDelay: 1500,
    animationTime: 0.8,
    gestureSettingsMouse: { dblClickToZoom: true },
  });
  made.addHandler("open", ({ eventSource }) =>
    eventSource.world.getItemAt(0).addHandler("fully-loaded-change", ({ fullyLoaded }) => (find("#stage").ariaBusy = !fullyLoaded)),
  );
  made.addHandler("update-viewport", () => {
    const { viewport } = made;
    find("#zoom").value = `${Math.round(100 * viewport.viewportToImageZoom(viewport.getZoom(true)))} %`;
  });
  made.addHandler("open-failed", ({ message }) => report(message));
  made.addHandler("tile-load-failed", ({ tile }) => get(tile.getUrl()).catch(report));
  return made;
}

function describe(id, info) {
  find("#title").textContent = document.title = id;
  const grid = info.tiles?.[0];
  const shape = [`${info.width} × ${info.height} pixels`];
  if (grid) shape.push(`tiles of ${grid.width} × ${grid.height ?? grid.width}, ${grid.scaleFactors.length} levels`);
  find("#shape").textContent = shape.join(" · ");
  find("#address input").value = info.id;
  const sizes = (info.sizes ?? []).map(({ width, height }) => [`${width} × ${height}`, `full/${width},${height}/0/default.jpg`]);
  const links = [["info.json", "info.json"], ["full/max", "full/max/0/default.jpg"], ...sizes];
  find("#links").replaceChildren(
    ...links.map(([text, rest]) => Object.assign(document.createElement("a"), { textContent: text, href: `${info.id}/${rest}`, target: "_blank" })),
  );
}

// Restricted images: the smaller picture is shown, and the way to the whole one is offered

let way = null;

async function offer(found) {
  way = found;
  find("#access").hidden = true;
  if (!found) return;
  const told = await probed(found);
  if (way !== found || told.status === 200) return;
  find("#access span").textContent = sentence(told.heading, told.note);
  find("#access button").textContent = sentence(found.access.confirmLabel ?? found.access.label) || "Log in";
  find("#access button").title = sentence(found.access.label);
  find("#access").hidden = false;
}

async function enter() {
  const told = await loggedIn(way);
  return told.status === 200 ? navigate() : report(sentence(told.heading, told.note));
}

const actions = {
  close: () => (location.hash = ""),
  in: () => viewer?.viewport.zoomBy(2),
  out: () => viewer?.viewport.zoomBy(0.5),
  actual: () => viewer?.viewport.zoomTo(viewer.viewport.imageToViewportZoom(1)),
  home: () => viewer?.viewport.goHome(),
  turn: () => viewer?.viewport.rotateBy(90),
};

function mark(event) {
  const box = event.target.closest("tr")?.dataset.box;
  viewer?.removeOverlay("mark");
  if (!box || !viewer?.isOpen()) return;
  const element = Object.assign(document.createElement("div"), { id: "mark" });
  viewer.addOverlay({ element, location: viewer.world.getItemAt(0).imageToViewportRectangle(...box.split(",").map(Number)) });
}

// What it cost

function measure(entry) {
  const [region, size, , last] = new URL(entry.name).pathname.split("/").slice(-4).map(decodeURIComponent);
  if (entry.initiatorType !== "img" || !/^\w+\.\w+$/.test(last ?? "")) return null;
  const timing = Object.fromEntries(entry.serverTiming.map((it) => [it.name, it]));
  const [gets, bytes] = timing.source?.description.match(/\d+/g)?.map(Number) ?? [0, 0];
  const spent = ["source", "queue", "decode", "encode"].filter((name) => timing[name]);
  return {
    url: entry.name, region, size, gets, bytes, ms: entry.duration,
    route: (entry.responseStatus >= 400 ? "" : timing.route?.description) || "failed",
    spent: spent.map((name) => `${name} ${timing[name].duration} ms`).join(", "),
    cached: entry.transferSize === 0 && entry.encodedBodySize > 0,
  };
}

function record(it) {
  for (const picture of find("#cards").querySelectorAll("img")) if (picture.src === it.url) picture.parentNode.dataset.route = it.route;
  if (current && !it.url.startsWith(find("#address input").value)) return; // a late thumbnail of the gallery
  loaded.push(it);
  const link = Object.assign(document.createElement("a"), { href: it.url, target: "_blank", textContent: `${it.region} → ${it.size}` });
  const row = addRow(find("#log tbody"), it.route, [link, Math.round(it.ms), it.gets, size(it.bytes)], "prepend");
  row.title = it.cached ? "From the browser's cache" : it.spent;
  row.classList.toggle("cached", it.cached);
  if (/^\d+,/.test(it.region)) row.dataset.box = it.region;
}

function addRow(body, route, cells, how = "append") {
  const row = document.createElement("tr");
  row.dataset.route = route;
  for (const content of [route, ...cells]) row.insertCell().append(content);
  row.cells[0].className = "route";
  body[how](row);
  return row;
}

function total() {
  find("#totals tbody").replaceChildren();
  for (const route of ROUTES) {
    const of = loaded.filter((it) => it.route === route && !it.cached);
    const sum = (name) => of.reduce((all, it) => all + it[name], 0);
    const median = of.map((it) => it.ms).sort((a, b) => a - b)[of.length >> 1];
    const count = find(`#legend [data-route=${route}] b`);
    if (count) count.textContent = of.length;
    if (of.length) addRow(find("#totals tbody"), route, [of.length, sum("gets"), size(sum("bytes")), Math.round(median)]);
  }
}

function size(bytes) {
  const power = bytes < 1000 ? 0 : bytes < 999_500 ? 1 : 2;
  return `${(bytes / 1000 ** power).toFixed(power && bytes / 1000 ** power < 99.5 ? 1 : 0)} ${["B", "kB", "MB"][power]}`;
}

function forget() {
  loaded = [];
  find("#log tbody").replaceChildren();
  total();
}

// The address bar decides what is shown

function show(reading) {
  find("#gallery").hidden = reading;
  find("#reading").hidden = !reading;
  document.body.classList.toggle("reading", reading);
}

async function navigate() {
  const left = document.getElementById(`card ${current}`);
  current = decodeURIComponent(location.hash.slice(1)) || null;
  report(null);
  forget();
  viewer?.close();
  if (!current) return browse(left);
  try {
    await open(current);
  } catch (problem) {
    report(problem);
    await browse(left);
  }
}

async function browse(left) {
  current = null;
  document.title = "special";
  show(false);
  if (images.size === 0 && following !== null) await more();
  left?.querySelector("a").focus();
}

const safely = (action) => (event) => Promise.resolve(event).then(action).catch(report);

new PerformanceObserver((list) => {
  list.getEntries().map(measure).filter(Boolean).forEach(record);
  total();
}).observe({ type: "resource", buffered: true });

find("header input").addEventListener("input", filter);
find("header form").addEventListener("submit", (event) => {
  event.preventDefault();
  const shown = filter();
  const id = shown.length === 1 ? shown[0].id.slice("card ".length) : wanted();
  if (id) location.hash = encodeURIComponent(id);
});
find("#more").addEventListener("click", safely(more));
find("#stage nav").addEventListener("click", ({ target }) => actions[target.dataset.do]?.());
find("#access button").addEventListener("click", safely(enter));
find("#address button").addEventListener("click", safely(() => {
  find("#address input").select();
  return navigator.clipboard?.writeText(find("#address input").value);
}));
for (const moment of ["pointerover", "focusin", "pointerleave"]) find("#log").addEventListener(moment, mark);
addEventListener("keydown", ({ key }) => key === "Escape" && !find("#reading").hidden && actions.close());
addEventListener("hashchange", safely(navigate));
safely(navigate)();
