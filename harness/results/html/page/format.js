// Numbers and elements as the pages show them. Text of runs only ever becomes text, never markup.

/** Return an element; `attributes` of null are left out, children are elements or text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(key, value);
  made.append(...children.filter((one) => one !== null && one !== undefined));
  return made;
}

export function number(value, digits = 1) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/** Return a share in percent. */
export function percent(value, digits = 1) {
  return value === null || value === undefined ? "–" : (100 * value).toFixed(digits);
}

/** Return a value as a line of text. */
export function plain(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.map(plain).join("; ") : "–";
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(5)));
  return String(value);
}

/** Return the address of a page of this page. */
export function address(page, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return `#${page}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export function link(page, parameters, label) {
  return element("a", { href: address(page, parameters) }, label);
}

/** Fill a select with [value, label] pairs and choose one; the first where `chosen` is none of them. */
export function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, label]) => element("option", { value }, label)));
  select.value = options.some(([value]) => value === chosen) ? chosen : (options[0]?.[0] ?? "");
  return select.value;
}

export const COSTS = {
  nfe: { label: "model calls per sample", digits: 1, scale: 1 },
  query_tokens: { label: "query tokens per sample", digits: 0, scale: 1 },
  efe: { label: "equivalent full forwards", digits: 1, scale: 1 },
  latency_s: { label: "milliseconds per sample", digits: 1, scale: 1000 },
};
