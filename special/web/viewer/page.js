// The page at `/`: a gallery, a deep-zoom viewer, addresses to share, and what each request cost.
// All costs come from the Server-Timing header of each image, as the browser hands it on.

import { loggedIn, probed, sentence, waysIn } from "./login.js";
import { shared } from "./share.js";

const find = (selector) => document.querySelector(selector);
const ROUTES = ["thumb", "derivative", "stream", "tile", "failed"];
const images = new Map(); // identifier -> path of its image service
let folder = null; // the one that the gallery shows; null before the first
let following = ""; // where the gallery's next page starts; null after the last
let listing = true;
let current = null; // the identifier that is being read; null in the gallery
let loaded = []; // one record for each request for pixels that this view made
let service = ""; // address of the image that is being read
let viewer = null;

function report(problem) {
  find("#problem").textContent = problem?.message ?? problem ?? "";
  find("#problem").hidden = !problem;
}

async function get(url) {
  const response = await fetch(url);
  // Of an image that may not be seen at all info.json is 401, and describes it all the same.
  if (response.ok || (response.status === 401 && response.headers.get("content-type").includes("json"))) return response;
  throw Object.assign(new Error((await response.text()).trim() || `${url}: ${response.status}`), { status: response.status });
}

const ask = async (url) => (await get(url)).json();

// Gallery

async function more() {
  const shown = folder;
  const page = await ask(`viewer/images.json?${new URLSearchParams({ folder, after: following })}`);
  if (shown !== folder) return; // another was opened meanwhile
  page.folders.forEach(addFolder);
  page.images.forEach((image) => addCard(image, page.thumbnail));
  ({ next: following, listing } = page);
  find("#more").hidden = following === null;
  filter();
}

async function enterFolder(wanted) {
  folder = wanted;
  following = "";
  find("#cards").replaceChildren();
  const above = folder.split("/").slice(0, -1);
  const steps = above.map((name, depth) => link(name, above.slice(0, depth + 1).join("/") + "/"));
  find("#place span").replaceChildren(link("All images", ""), ...steps.flatMap((step) => [" / ", step]));
  find("#place > a").href = `iiif/manifest/${folder.split("/").map(encodeURIComponent).join("/")}`;
  await more();
  find("#place").hidden = !listing;
}

const link = (textContent, id) => Object.assign(document.createElement("a"), { textContent, href: `#${encodeURIComponent(id)}` });

function newCard(template, id, name) {
  const card = find(template).content.cloneNode(true).firstElementChild;
  card.id = `card ${id}`;
  card.querySelector("a").href = link("", id).href;
  card.querySelector("span").textContent = name;
  card.querySelector("span").title = id;
  find("#cards").append(card);
  return card;
}

const addFolder = (path) => newCard("#folder", path, path.slice(folder.length));

function addCard({ id, path }, thumbnail) {
  images.set(id, path);
  const card = newCard("#card", id, id.startsWith(folder) ? id.slice(folder.length) : id);
  const picture = card.querySelector("img");
  card.ariaBusy = true;
  picture.addEventListener("load", () => settle(card));
  picture.addEventListener("error", () => get(picture.src).catch((problem) => {
    const most = `${path}/full/max/0/default.jpg`; // of a restricted image, what this client may see
    if ([401, 403].includes(problem.status) && !picture.src.endsWith(most)) return (picture.src = most);
    picture.parentNode.dataset.route = "failed";
    picture.replaceWith(Object.assign(document.createElement("p"), { textContent: problem.message }));
    settle(card);
  }));
  picture.src = `${path}/full/${thumbnail}/0/default.jpg`;
  progress();
}

function settle(card) {
  card.ariaBusy = false;
  progress();
}

function progress() {
  const all = find("#cards").querySelectorAll(".image").length;
  const waiting = find("#cards").querySelectorAll("[aria-busy=true]").length;
  Object.assign(find("#progress"), { max: all || 1, value: all - waiting, hidden: waiting === 0 });
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
      ? `There are no images here yet.\nPut some into the ${folder ? "folder" : "source"}, then load this page again.`
      : "This source is not listed.\nType an image's identifier above and press Enter, or ask for /iiif/3/{identifier}/info.json. " +
        "An identifier is the name of an object below the source. To list them here, start the server with SPECIAL_GALLERY=true, " +
        "and with a catalogue, if there is one, that can list its images.";
  return shown;
}

// Deep zoom

let library = null;
const loadLibrary = () =>
  (library ??= new Promise((resolve, reject) => {
    const script = Object.assign(document.createElement("script"), { src: "viewer/openseadragon.min.js" });
    script.onload = resolve;
    script.onerror = () => reject(new Error(`OpenSeadragon could not be loaded from ${script.src}.`));
    document.head.append(script);
  }));

async function open(id) {
  const path = images.get(id) ?? (await ask(`viewer/images.json?${new URLSearchParams({ id })}`)).images[0].path;
  const described = await get(`${path}/info.json`);
  const info = await described.json();
  if (id !== current) return; // something else was opened meanwhile
  show(true);
  describe(id, info, path);
  info.id = service = new URL(path, document.baseURI).href; // ask the server that gave this page, whatever its public name
  offer(waysIn(info)[0]).catch(report);
  if (described.status === 401) return viewer?.close(); // nothing may be seen
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
    eventSource.world.getItemAt(0).addHandler("fully-loaded-change", ({ fullyLoaded }) => {
      find("#stage").ariaBusy = !fullyLoaded;
      if (fullyLoaded) find("#preparing").hidden = true;
    }),
  );
  made.addHandler("update-viewport", () => {
    const { viewport } = made;
    find("#zoom").value = `${Math.round(100 * viewport.viewportToImageZoom(viewport.getZoom(true)))} %`;
  });
  made.addHandler("open-failed", ({ message }) => report(message));
  made.addHandler("tile-load-failed", ({ tile }) => get(tile.getUrl()).catch(report));
  return made;
}

function describe(id, info, path) {
  find("#title").textContent = document.title = id;
  find("#preparing").hidden = true;
  const grid = info.tiles?.[0];
  const shape = [`${info.width} × ${info.height} pixels`];
  if (grid) shape.push(`tiles of ${grid.width} × ${grid.height ?? grid.width}, ${grid.scaleFactors.length} levels`);
  find("#shape").textContent = shape.join(" · ");
  const { texts, mirador } = shared(info, id, path);
  find("#share ul").replaceChildren(...Object.entries(texts).map(([name, text]) => copyable(name, text)));
  const sizes = (info.sizes ?? []).map(({ width, height }) => [`${width} × ${height}`, `${path}/full/${width},${height}/0/default.jpg`]);
  const links = [["Open in Mirador", mirador], ["info.json", `${path}/info.json`], ["full/max", `${path}/full/max/0/default.jpg`], ...sizes];
  find("#links").replaceChildren(
    ...links.map(([textContent, href]) => Object.assign(document.createElement("a"), { textContent, href, target: "_blank", rel: "noopener" })),
  );
}

function copyable(name, value) {
  const row = find("#shared").content.cloneNode(true).firstElementChild;
  const text = row.querySelector("textarea");
  row.querySelector("span").textContent = name;
  text.value = value;
  row.querySelector("button").ariaLabel = `Copy: ${name}`;
  row.querySelector("button").addEventListener("click", safely(() => {
    text.select();
    return navigator.clipboard?.writeText(value);
  }));
  return row;
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
  close: () => (location.hash = encodeURIComponent(folder ?? "")),
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
    preparing: "pyramid" in timing,
  };
}

function record(it) {
  for (const picture of find("#cards").querySelectorAll("img")) if (picture.src === it.url) picture.parentNode.dataset.route = it.route;
  if (current && !it.url.startsWith(service)) return; // a late thumbnail of the gallery
  if (current && it.preparing && find("#stage").ariaBusy === "true") find("#preparing").hidden = false;
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
  const wanted = decodeURIComponent(location.hash.slice(1));
  current = wanted && !wanted.endsWith("/") ? wanted : null;
  report(null);
  forget();
  viewer?.close();
  if (!current) return browse(left, wanted);
  try {
    await open(current);
  } catch (problem) {
    report(problem);
    await browse(left);
  }
}

async function browse(left, wanted = folder ?? "") {
  current = null;
  document.title = "special";
  show(false);
  if (wanted !== folder) await enterFolder(wanted);
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
for (const moment of ["pointerover", "focusin", "pointerleave"]) find("#log").addEventListener(moment, mark);
addEventListener("keydown", ({ key }) => key === "Escape" && !find("#reading").hidden && actions.close());
function showCosts() {
  localStorage.costs = find("#costs").checked ? "on" : "off";
  document.body.classList.toggle("costs", find("#costs").checked);
}

find("#costs").checked = localStorage.costs === "on";
find("#costs").addEventListener("change", showCosts);
showCosts();
addEventListener("hashchange", safely(navigate));
safely(navigate)();
