// Copies text: by the clipboard where the page may use it (https and this host), else by selecting it.

/** A button that copies what `text()` says then, and says that it did. */
export function copyButton(label, text, id) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  if (id) button.id = id;
  button.addEventListener("click", () => copy(text(), button));
  return button;
}

export async function copy(text, button) {
  const label = button.textContent;
  const done = (await write(text)) ? "Copied" : "Copying is not allowed here";
  if (label === done) return;
  button.textContent = done;
  setTimeout(() => (button.textContent = label), 1200);
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    const { activeElement } = document;
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    activeElement?.focus();
    return done;
  }
}
