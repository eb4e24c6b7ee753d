// The panel that says what the socket is: its URL, and snippets to do the same elsewhere.
//
// A snippet that consumes has a client id of its own, since an id is connected once, and its own group
// unless the reader named one: the page holds the partitions of its own.

import { copyButton } from "./copy.js";
import { consumeUrl, produceUrl, randomName, topicsOf } from "./parameters.js";
import { snippet, TOOLS, variables } from "./snippets.js";

const at = (id) => document.getElementById(id);
const clientIds = {};

/** Fills the choices and the places of buttons; `changed()` is called when a choice changes. */
export function listenToConnect(changed) {
  for (const tool of TOOLS) at("snippet-tool").add(new Option(tool));
  for (const id of ["snippet-tool", "snippet-endpoint"]) at(id).addEventListener("change", changed);
  at("copy-url-place").append(copyButton("Copy URL", () => at("consume-url").textContent, "copy-url"));
  at("copy-snippet-place").append(copyButton("Copy", () => at("snippet").textContent, "copy-snippet"));
}

/** `running` is the URL of the socket that there is; without one, that of one that would be. */
export function showConnect({ parameters, running, produceForm }) {
  const named = topicsOf(parameters.topic).length > 0;
  const url = running ?? consumeUrl(parameters, { clientId: "console" });
  at("consume-url").textContent = named || running ? url : "Name a topic first.";
  at("snippet").textContent = text(parameters, named, produceForm);
  const names = variables();
  at("snippet-note").textContent =
    names.length > 0 ? `Credentials are taken from the environment: ${names.join(", ")}.` : "";
}

function text(parameters, named, produceForm) {
  const tool = at("snippet-tool").value;
  if (at("snippet-endpoint").value === "consume") {
    if (!named) return "Name a topic first.";
    const clientId = clientIds[tool] ??= randomName(`${tool.toLowerCase()}-`);
    return snippet(tool, "consume", consumeUrl(parameters, { clientId, groupId: parameters.groupId }));
  }
  if (!produceForm.parameters.topic.trim()) return "Name a topic to produce to first.";
  try {
    return snippet(tool, "produce", produceUrl(produceForm.parameters, {}), produceForm.record());
  } catch (error) {
    return error.message;
  }
}
