// What to put into other pages and viewers to show an image. Pure: addresses in, texts out.

const LARGEST = 2000; // width in pixels; what is larger is better shown by a viewer

const escaped = (text) => text.replace(/[&<>"]/g, (it) => `&#${it.charCodeAt(0)};`);

// The sizes that a page may choose from: those of info.json, which are cheapest, that are not too large.
function offered({ width, height, sizes = [] }) {
  const listed = sizes.length ? sizes : [{ width, height }];
  const small = listed.filter((it) => it.width <= LARGEST);
  return small.length ? small : listed.slice(0, 1);
}

function picture(info, name) {
  const address = ({ width, height }) => `${info.id}/full/${width},${height}/0/default.jpg`;
  const all = offered(info);
  const largest = all.at(-1);
  const sources = all.map((it) => `${address(it)} ${it.width}w`);
  return `<img src="${address(largest)}"
  srcset="${[...new Set(sources)].join(",\n    ")}"
  sizes="(max-width: ${largest.width}px) 100vw, ${largest.width}px"
  width="${largest.width}" height="${largest.height}" style="max-width: 100%; height: auto" alt="${escaped(name)}">`;
}

const zoomable = (info, server) => `<div id="picture" style="width: 100%; height: 600px"></div>
<script src="${server}viewer/openseadragon.min.js"></script>
<script>
  OpenSeadragon({ id: "picture", tileSources: "${info.id}/info.json", showNavigationControl: false });
</script>`;

// Label and text of everything that can be copied; `path` is the image's below `server`, the server's public address.
export function shared(info, name, path) {
  const server = info.id.endsWith(path) ? info.id.slice(0, -path.length) : new URL(".", document.baseURI).href;
  const manifest = `${server}iiif/manifest/${path.replace(/^iiif\/v?3\//, "")}`;
  return {
    texts: {
      "IIIF address": info.id,
      "info.json": `${info.id}/info.json`,
      Manifest: manifest,
      "In a page": picture(info, name),
      "In a page, to zoom": zoomable(info, server),
    },
    mirador: `https://projectmirador.org/embed/?iiif-content=${encodeURIComponent(manifest)}`,
  };
}
