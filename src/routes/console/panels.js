// What the page is made of beside the records: tabs, dialogs, and the keys that are listed in one.
//
// Single keys are for where nobody types, and can be turned off (WCAG 2.1.4).

/** Tabs by the ARIA pattern: arrow keys move, one is in the order of Tab. `shown(name)` is called. */
export class Tabs {
  #tabs;

  constructor(list, shown) {
    this.#tabs = [...list.querySelectorAll("[role=tab]")];
    this.shown = shown;
    list.addEventListener("click", (event) => {
      const tab = event.target.closest("[role=tab]");
      if (tab) this.show(nameOf(tab));
    });
    list.addEventListener("keydown", (event) => {
      const at = this.#tabs.indexOf(event.target);
      const last = this.#tabs.length - 1;
      const to = {
        ArrowRight: at === last ? 0 : at + 1,
        ArrowLeft: at === 0 ? last : at - 1,
        Home: 0,
        End: last,
      }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      this.show(nameOf(this.#tabs[to]));
      this.#tabs[to].focus();
    });
  }

  show(name) {
    for (const tab of this.#tabs) {
      const chosen = nameOf(tab) === name;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      panelOf(tab).hidden = !chosen;
    }
    this.shown(name);
  }
}

const nameOf = (tab) => tab.id.slice("tab-".length);
const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));

/** Lists the keys in the dialog, and does what they say: [key, what it does, action]. */
export function listenToKeys(shortcuts, list, enabled) {
  for (const [key, text] of shortcuts) {
    const term = document.createElement("dt");
    const keyCap = document.createElement("kbd");
    keyCap.textContent = key;
    term.append(keyCap);
    const what = document.createElement("dd");
    what.textContent = text;
    list.append(term, what);
  }
  const actions = new Map(shortcuts.filter(([, , action]) => action).map(([key, , action]) => [key, action]));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !enabled.checked) return;
    if (event.target.closest("input, textarea, select, dialog")) return;
    const action = actions.get(event.key);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Completes the last topic of a field from the server's list; without one it stays free text. */
export function completeTopics(fields, list, get) {
  let timer = 0, missing = false;
  const ask = async (field) => {
    const comma = field.value.lastIndexOf(",") + 1;
    const before = field.value.slice(0, comma);
    const contains = field.value.slice(comma).trim();
    try {
      const answer = await get(`console/topics?${new URLSearchParams({ contains, limit: "20" })}`);
      missing = answer.status === 404;
      if (!answer.ok) return;
      const { topics } = await answer.json();
      list.replaceChildren(...topics.map(({ name, partitions }) => {
        const option = document.createElement("option");
        option.value = before + name;
        option.label = `${name}, ${partitions} partition${partitions === 1 ? "" : "s"}`;
        return option;
      }));
    } catch {
      // The state of the server is said elsewhere.
    }
  };
  for (const field of fields) {
    const soon = () => {
      clearTimeout(timer);
      if (!missing) timer = setTimeout(() => ask(field), 150);
    };
    field.addEventListener("input", soon);
    field.addEventListener("focus", soon);
  }
}
