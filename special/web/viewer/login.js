// How a restricted image comes to be seen in full: the IIIF Authorization Flow 2.0, as any viewer goes through it.
// Section numbers are those of https://iiif.io/api/auth/2.0/

const services = (of, type) => [of.service ?? []].flat().filter((it) => it.type === type);

// The server that gave this page is asked, whatever its public name.
const here = (address) => new URL(new URL(address).pathname, location);

// The ways in that a description of an image names; none for an open image.
export function waysIn(info) {
  return services(info, "AuthProbeService2").flatMap((probe) =>
    services(probe, "AuthAccessService2").map((access) => ({ probe, access, token: services(access, "AuthAccessTokenService2")[0] })),
  );
}

// What the probe service says of the image (section 5): status 200, or a heading, a note and maybe a substitute.
export async function probed({ probe }, token) {
  const response = await fetch(here(probe.id), { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  return response.json();
}

// Through the login page to a token, and with it to the probe service again. Call it in a click: it opens a tab.
export async function loggedIn(way) {
  if (way.access.id) await visited(way.access.id);
  const told = await tokenOf(way.token);
  if (told.accessToken) return probed(way, told.accessToken);
  return { status: 401, heading: told.heading, note: told.note };
}

export const sentence = (...texts) => texts.flatMap((text) => Object.values(text ?? {})[0] ?? []).join(". ");

// Section 3.4: the page reports nothing; that it was closed is all there is to know.
function visited(page) {
  const address = new URL(page);
  address.searchParams.set("origin", location.origin);
  const tab = open(address);
  if (!tab) throw new Error("The browser did not open the login page; allow this site to open tabs.");
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (!tab.closed) return;
      clearInterval(timer);
      resolve();
    }, 200);
  });
}

// Section 4.3: the token service's page posts its message to the page that frames it.
function tokenOf(service) {
  const messageId = `${performance.now()}-${Math.random()}`;
  const address = here(service.id);
  address.search = new URLSearchParams({ messageId, origin: location.origin });
  const frame = Object.assign(document.createElement("iframe"), { src: address, hidden: true });
  const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
  return new Promise((resolve) => {
    addEventListener("message", function heard({ source, origin, data }) {
      if (source !== frame.contentWindow || origin !== address.origin || data?.messageId !== messageId) return;
      removeEventListener("message", heard);
      loaded.then(() => frame.remove());  // not before: its request would count as failed
      resolve(data);
    });
    document.body.append(frame);
  });
}
