// The list of records: only the rows in sight are elements, whatever the buffer holds.
//
//   div#records (scrolls, role=listbox) > div.height (as high as all rows) > div.row (in sight)
//
// Row i of the view stands at i × the row's height. Elements are kept and filled anew; a row is
// filled again only when another record, or another format, comes to stand there. Arrivals are drawn
// at most every 100 ms (1 s with reduced motion), scrolling and keys with the next frame.
//
// The list follows the newest while it is scrolled to them. Otherwise the record on top stays where it
// is: what comes in before it, or falls off, moves the scroll position by as much.

import { line, present } from "./formats.js";

/** The narrowest that a character is, in pixels: what does not fit a row is not laid out. */
const CHARACTER_PIXELS_MIN = 6;
/** What is longer is shown in the format it came in: its first line is worth no more work than that. */
const PRESENTED_CHARACTERS_MAX = 65_536;
const PARTITION_COLOURS = 8;
/** Columns in characters: least, most; the sheet has the least. */
const WIDTHS = { place: [11, 32], key: [0, 20] };
const DRAW_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100;

export class TopicView {
  #list;
  #height;
  #rows = [];
  #buffer;
  #rowHeight = 0;
  #charactersMax = 0; // of a row's value
  #drawn = 0; // when, by performance.now()
  #requested = false;
  #timer = 0;
  #anchor = null; // { sequence, pixels }: the record on top, and how much of it is scrolled out
  #selected = null;

  newestFirst = true;
  follow = true;
  severalTopics = false;
  keyType = "";
  valType = "string";

  /**
   * `selected(record)` is called when a record was chosen, `opened()` when it shall be read (a click,
   * Enter), `followed()` when `follow` changed by scrolling.
   */
  constructor(list, buffer, { selected, opened, followed }) {
    this.#list = list;
    this.#buffer = buffer;
    this.#height = list.firstElementChild;
    this.selected = selected;
    this.opened = opened;
    this.followed = followed;
    list.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (!row) return;
      this.select(row.record);
      this.opened();
    });
    new ResizeObserver(() => this.#resized()).observe(list);
  }

  /** The chosen record, also when it fell off. */
  get selection() {
    return this.#selected;
  }

  /** Draws soon: what came in can wait for the next turn. */
  changed() {
    if (this.#requested || this.#timer) return;
    const wait = this.#drawn + DRAW_MS - performance.now();
    if (wait <= 0) return this.drawNow();
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.drawNow();
    }, wait);
  }

  /** Draws with the next frame. */
  drawNow() {
    if (this.#requested) return;
    this.#requested = true;
    requestAnimationFrame(() => {
      this.#requested = false;
      this.#draw();
    });
  }

  /** What the search found is marked in the rows (CSS Custom Highlight API, where the browser has it). */
  mark(needle) {
    this.#needle = needle.toLowerCase();
    this.reset();
  }
  #needle = "";
  #marked = false;

  #highlight() {
    if (!("highlights" in CSS)) return;
    const found = new Highlight();
    for (const row of this.#needle ? this.#rows : []) {
      if (row.hidden) continue;
      for (const { firstChild } of [row.cells.key, row.cells.value]) {
        const at = firstChild?.data.toLowerCase().indexOf(this.#needle) ?? -1;
        if (at < 0 || at + this.#needle.length > firstChild.length) continue;
        const range = new Range();
        range.setStart(firstChild, at);
        range.setEnd(firstChild, at + this.#needle.length);
        found.add(range);
      }
    }
    CSS.highlights.set("found", found);
  }

  /** The buffer was cleared. */
  clear() {
    this.#selected = null;
    this.#widths.clear();
    const { style } = this.#list.parentElement;
    for (const column of Object.keys(WIDTHS)) style.removeProperty(`--${column}-width`);
    this.reset();
  }

  /** Another order, search or format: every row may be another one. */
  reset() {
    this.#anchor = null;
    for (const row of this.#rows) row.record = undefined;
    if (!this.follow && this.#selected) this.#reveal(this.#selected.sequence);
    this.drawNow();
  }

  setFollow(follow) {
    this.follow = follow;
    this.#anchor = null;
    this.drawNow();
  }

  select(record) {
    this.#selected = record;
    this.selected(record);
    this.drawNow();
  }

  /** Chooses the record that is `step` rows below the chosen one, or the first in sight. */
  move(step) {
    const size = this.#buffer.viewSize;
    if (size === 0) return;
    let index = Math.min(size - 1, this.#topIndex());
    if (this.#selected) {
      const before = this.#indexOf(this.#selected.sequence);
      // One that fell off, or does not match, is followed by what is in its place.
      const present = this.#at(before) === this.#selected;
      index = Math.min(size - 1, Math.max(0, before + (present ? step : 0)));
    }
    this.#choose(index);
  }

  #choose(index) {
    const record = this.#at(index);
    if (this.follow) {
      this.follow = false;
      this.followed();
    }
    this.select(record);
    this.#revealIndex(index);
  }

  /** The record in row `index`. */
  #at(index) {
    return this.#buffer.at(this.newestFirst ? this.#buffer.viewSize - 1 - index : index);
  }

  #indexOf(sequence) {
    const index = this.#buffer.indexOf(sequence);
    const size = this.#buffer.viewSize;
    return Math.min(size - 1, Math.max(0, this.newestFirst ? size - 1 - index : index));
  }

  #reveal(sequence) {
    this.#revealIndex(this.#indexOf(sequence));
  }

  #revealIndex(index) {
    const top = index * this.#rowHeight;
    const { scrollTop, clientHeight } = this.#list;
    this.#setHeight();
    if (top < scrollTop) this.#list.scrollTop = top;
    else if (top + this.#rowHeight > scrollTop + clientHeight) {
      this.#list.scrollTop = top + this.#rowHeight - clientHeight;
    }
    this.#remember();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.#list.clientHeight / this.#rowHeight) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Enter" && this.#selected) this.opened();
    else if (event.key === "Home" && this.#buffer.viewSize) this.#choose(0);
    else if (event.key === "End" && this.#buffer.viewSize) this.#choose(this.#buffer.viewSize - 1);
    else return;
    event.preventDefault();
  }

  #resized() {
    // The sheet says how high a row is, which differs with the width.
    const height = parseFloat(getComputedStyle(this.#list).getPropertyValue("--row-height"));
    const charactersMax = Math.ceil(this.#list.clientWidth / CHARACTER_PIXELS_MIN);
    if (height !== this.#rowHeight || charactersMax > this.#charactersMax) {
      this.#rowHeight = height;
      this.#charactersMax = charactersMax;
      for (const row of this.#rows) row.record = undefined;
    }
    this.drawNow();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.#list;
    const distance = this.newestFirst ? scrollTop : scrollHeight - clientHeight - scrollTop;
    const atNewest = distance < this.#rowHeight / 2;
    // Only a person scrolls away: while following, the list itself stays with the newest.
    if (this.follow !== atNewest && (atNewest || this.#expectedTop !== Math.round(scrollTop))) {
      this.follow = atNewest;
      this.followed();
    }
    this.#remember();
    this.drawNow();
  }
  #expectedTop = -1;

  #topIndex() {
    return Math.floor(this.#list.scrollTop / this.#rowHeight);
  }

  /** Remembers which record is on top. */
  #remember() {
    this.#anchor = null;
    const index = this.#topIndex();
    if (this.follow || index >= this.#buffer.viewSize) return;
    const record = this.#at(index);
    this.#anchor = { sequence: record.sequence, pixels: this.#list.scrollTop - index * this.#rowHeight };
  }

  #setHeight() {
    this.#height.style.height = `${this.#buffer.viewSize * this.#rowHeight}px`;
  }

  #draw() {
    if (!this.#rowHeight) return;
    this.#drawn = performance.now();
    this.#setHeight();
    this.#place();
    const size = this.#buffer.viewSize;
    const first = this.#topIndex();
    const count = Math.min(size - first, Math.ceil(this.#list.clientHeight / this.#rowHeight) + 1);
    while (this.#rows.length < count) this.#rows.push(this.#newRow());
    let active = "";
    for (const [n, row] of this.#rows.entries()) {
      row.hidden = n >= count;
      if (row.hidden) continue;
      const index = first + n;
      const record = this.#at(index);
      row.style.transform = `translateY(${index * this.#rowHeight}px)`;
      row.setAttribute("aria-posinset", index + 1);
      row.setAttribute("aria-setsize", size);
      row.setAttribute("aria-selected", record === this.#selected);
      if (record === this.#selected) active = row.id;
      if (row.record !== record) this.#fill(row, record);
    }
    if (this.#needle || this.#marked) this.#highlight();
    this.#marked = this.#needle !== "";
    if (active) this.#list.setAttribute("aria-activedescendant", active);
    else this.#list.removeAttribute("aria-activedescendant");
  }

  /** Scrolls to the newest, or keeps the record on top where it is. */
  #place() {
    let top = this.#list.scrollTop;
    if (this.follow) {
      top = this.newestFirst ? 0 : this.#list.scrollHeight - this.#list.clientHeight;
    } else if (this.#anchor) {
      top = this.#indexOf(this.#anchor.sequence) * this.#rowHeight + this.#anchor.pixels;
    }
    top = Math.max(0, Math.round(top));
    if (top === Math.round(this.#list.scrollTop)) return;
    this.#expectedTop = top;
    this.#list.scrollTop = top;
  }

  /** A column is as wide as the widest text that was in it, within bounds. */
  #widen(column, text) {
    const [least, most] = WIDTHS[column];
    const width = Math.min(most, text.length);
    if (width <= (this.#widths.get(column) ?? least)) return;
    this.#widths.set(column, width);
    this.#list.parentElement.style.setProperty(`--${column}-width`, `${width}ch`);
  }
  #widths = new Map();

  #newRow() {
    const row = document.createElement("div");
    row.className = "row";
    row.id = `row-${this.#rows.length}`;
    row.setAttribute("role", "option");
    row.cells = {};
    for (const name of ["time", "place", "key", "value"]) {
      row.cells[name] = row.appendChild(document.createElement("span"));
      row.cells[name].className = name;
      row.append(" "); // between what a screen reader says
    }
    this.#height.append(row);
    return row;
  }

  #fill(row, record) {
    row.record = record;
    row.dataset.partition = record.partition % PARTITION_COLOURS;
    const { time, place, key, value } = row.cells;
    time.textContent = clock(record.timestamp);
    place.textContent = `${this.severalTopics ? `${record.topic} ` : ""}${record.partition}@${record.offset}`;
    this.#widen("place", place.textContent);
    const shownKey = present(record.key, this.keyType);
    key.textContent = line(shownKey, 80);
    this.#widen("key", key.textContent);
    key.classList.toggle("absent", !shownKey);
    if (record.error) {
      value.className = "value error";
      value.textContent = record.error;
      return;
    }
    const isShort = record.value.text.length <= PRESENTED_CHARACTERS_MAX;
    const shown = isShort ? present(record.value, this.valType) : record.value;
    value.className = `value${shown.format === undefined ? " tombstone" : ""}${shown.error ? " unfit" : ""}`;
    value.textContent = shown.format === undefined
      ? "tombstone"
      : line(shown, this.#charactersMax);
  }
}

/** The local time of day, to the millisecond. */
function clock(timestamp) {
  if (timestamp === undefined || timestamp < 0) return "";
  const date = new Date(timestamp);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
    + `.${String(date.getMilliseconds()).padStart(3, "0")}`;
}
