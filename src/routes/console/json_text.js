// JSON as text: cut into its parts and indented without being parsed.
//
// JSON.parse rounds integers beyond 2^53 and forgets how numbers and members were written. Who
// debugs a topic must see what is in it, so records stay the text that came, and are cut where
// their members begin and end. That is also cheaper than parsing a value nobody looks at.
//
// The text is taken to be well-formed, as the server sends it.

const QUOTE = 34, COMMA = 44, OPEN_ARRAY = 91, BACKSLASH = 92, CLOSE_ARRAY = 93, OPEN_OBJECT = 123,
  CLOSE_OBJECT = 125;

/** The texts of an array's elements; of anything else, that alone. */
export function elements(text) {
  let at = skipSpace(text, 0);
  if (text.charCodeAt(at) !== OPEN_ARRAY) return [text];
  const found = [];
  at = skipSpace(text, at + 1);
  while (at < text.length && text.charCodeAt(at) !== CLOSE_ARRAY) {
    const end = skipValue(text, at);
    found.push(text.slice(at, end));
    at = skipSeparator(text, end, COMMA);
  }
  return found;
}

/** An object's members, by name, each as its text; of anything else, none. */
export function members(text) {
  const found = Object.create(null);
  let at = skipSpace(text, 0);
  if (text.charCodeAt(at) !== OPEN_OBJECT) return found;
  at = skipSpace(text, at + 1);
  while (at < text.length && text.charCodeAt(at) !== CLOSE_OBJECT) {
    const nameEnd = skipString(text, at);
    const start = skipSeparator(text, nameEnd, 58);
    const end = skipValue(text, start);
    found[unquote(text.slice(at, nameEnd))] = text.slice(start, end);
    at = skipSeparator(text, end, COMMA);
  }
  return found;
}

/** What a JSON string says; of anything else, its text. */
export function unquote(text) {
  if (text.charCodeAt(0) !== QUOTE) return text;
  return text.includes("\\") ? JSON.parse(text) : text.slice(1, -1);
}

/** The beginning of what a JSON string says, without reading all of it. */
export function unquoteStart(text, charactersMax) {
  if (text.length <= charactersMax + 2) return unquote(text);
  // The cut may be inside an escape: at most 5 characters of one are left.
  for (let end = charactersMax; end > charactersMax - 6; end--) {
    try {
      return JSON.parse(text.slice(0, end) + '"');
    } catch {
      // one character less
    }
  }
  return text.slice(1, charactersMax);
}

/**
 * The same JSON, a member or an element a line, and numbers as they were written; no more of it than
 * the lines up to `charactersMax`.
 */
export function indent(text, charactersMax = Infinity) {
  const lines = [];
  let line = "", depth = 0, at = skipSpace(text, 0), characters = 0;
  const wrap = () => {
    lines.push(line);
    characters += line.length + 1;
    line = "  ".repeat(depth);
  };
  while (at < text.length && characters <= charactersMax) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      const end = skipString(text, at);
      line += text.slice(at, end);
      at = end;
    } else if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      line += text[at];
      at = skipSpace(text, at + 1);
      const next = text.charCodeAt(at);
      if (next === CLOSE_OBJECT || next === CLOSE_ARRAY) {
        line += text[at++];
      } else {
        depth++;
        wrap();
      }
    } else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      depth--;
      wrap();
      line += text[at++];
    } else if (code === COMMA) {
      line += ",";
      wrap();
      at++;
    } else if (code === 58) {
      line += ": ";
      at++;
    } else {
      const end = skipScalar(text, at);
      line += text.slice(at, end);
      at = end;
    }
    at = skipSpace(text, at);
  }
  lines.push(line);
  return lines.join("\n");
}

function skipValue(text, at) {
  const code = text.charCodeAt(at);
  if (code === QUOTE) return skipString(text, at);
  if (code !== OPEN_OBJECT && code !== OPEN_ARRAY) return skipScalar(text, at);
  let depth = 0;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      at = skipString(text, at);
      continue;
    }
    at++;
    if (code === OPEN_OBJECT || code === OPEN_ARRAY) depth++;
    else if ((code === CLOSE_OBJECT || code === CLOSE_ARRAY) && --depth === 0) return at;
  }
  throw new SyntaxError("the JSON text ends within a value");
}

/** Searches for the next quote natively, since strings are most of what records are made of. */
function skipString(text, at) {
  for (let quote = text.indexOf('"', at + 1); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let escapes = 0;
    while (text.charCodeAt(quote - 1 - escapes) === BACKSLASH) escapes++;
    if (escapes % 2 === 0) return quote + 1;
  }
  throw new SyntaxError("the JSON text ends within a string");
}

/** Numbers and words: up to a comma, a closing bracket, a colon or a space. */
function skipScalar(text, at) {
  const start = at;
  for (; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === COMMA || code === CLOSE_OBJECT || code === CLOSE_ARRAY || code === 58 || code <= 32) break;
  }
  return Math.max(at, start + 1);
}

function skipSpace(text, at) {
  while (at < text.length && text.charCodeAt(at) <= 32) at++;
  return at;
}

function skipSeparator(text, at, separator) {
  at = skipSpace(text, at);
  return text.charCodeAt(at) === separator ? skipSpace(text, at + 1) : at;
}
