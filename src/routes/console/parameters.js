// The parameters of the sockets, by their names in the query: from the form, in the URL's fragment
// (so that a view can be shared), and in the URLs of /socket/out and /socket/in.
//
// A link opens its view at once, unless it names a group: joining one takes partitions from its
// other members, which is for the reader to decide.

/** Parameters of the fragment, and what they are when it does not say. Never credentials. */
const SHARED = {
  topic: "",
  keyType: "",
  valType: "string",
  offsetResetStrategy: "latest",
  isolationLevel: "read_uncommitted",
  autoCommit: "false",
  groupId: "",
  order: "newest",
  search: "",
};

export function fromFragment() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const found = { ...SHARED };
  for (const name of Object.keys(SHARED)) found[name] = fragment.get(name) ?? SHARED[name];
  return found;
}

export function toFragment(parameters) {
  const fragment = new URLSearchParams();
  for (const [name, usual] of Object.entries(SHARED)) {
    if (parameters[name] !== usual && parameters[name] !== "") fragment.set(name, parameters[name]);
  }
  // A comma and a slash need no escape in a fragment, and names read better without.
  const text = fragment.toString().replaceAll("%2C", ",").replaceAll("%2F", "/");
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

/** A name that no other tab has. */
export function randomName(prefix) {
  const bytes = crypto.getRandomValues(new Uint8Array(5));
  return prefix + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function topicsOf(text) {
  return text.split(",").map((name) => name.trim()).filter((name) => name !== "");
}

/** The URL of a consuming socket. */
export function consumeUrl(parameters, { clientId, groupId, batchSize, errors }) {
  return socketUrl("socket/out", {
    topic: topicsOf(parameters.topic).join(","),
    clientId,
    groupId,
    offsetResetStrategy: parameters.offsetResetStrategy,
    isolationLevel: parameters.isolationLevel === "read_committed" ? "read_committed" : "",
    keyType: parameters.keyType,
    valType: parameters.valType,
    autoCommit: parameters.autoCommit,
    batchSize,
    errors,
  });
}

/** The URL of a producing socket. */
export function produceUrl({ topic, keyType, valType }, { clientId, errors }) {
  return socketUrl("socket/in", { topic: topic.trim(), keyType, valType, clientId, errors });
}

function socketUrl(path, query) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
  return url.href.replaceAll("%2C", ",");
}
