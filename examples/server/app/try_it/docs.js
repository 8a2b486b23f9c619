// The page at /docs: shows openapi.json.
"use strict";

let api;

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

/** Follows a reference within the document. */
function resolved(thing) {
  if (!thing?.$ref) return thing ?? {};
  return thing.$ref.slice(2).split("/").reduce((at, name) => at[name], api);
}

/** A schema in one line. */
function words(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.allOf) return schema.allOf.map(words).join(" and ");
  if (schema.anyOf) return schema.anyOf.map(words).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `[${words(schema.items)}, …]`;
  if (schema.properties) return `{${members(schema)}}`;
  return [schema.type].flat().join(" | ") + (schema.format ? ` (${schema.format})` : "");
}

function members({ properties, required = [] }) {
  return Object.entries(properties)
    .map(([name, schema]) => `${name}${required.includes(name) ? "" : "?"}: ${words(schema)}`)
    .join(", ");
}

function content(of) {
  return Object.entries(resolved(of).content ?? {})
    .map(([type, { schema }]) => `${type}: ${words(schema)}`);
}

function operation(method, path, op) {
  const details = element("details");
  details.append(element("summary", "", element("code", `${method.toUpperCase()} ${path}`), ` ${op.summary}`));
  if (op.description) details.append(element("p", op.description));
  details.append(element("p", op.security ? "With an access token or an API key." : "For anyone."));
  const list = (title, lines) => {
    if (!lines.length) return;
    details.append(element("h3", title), element("ul", "", ...lines.map((line) => element("li", line))));
  };
  list("Parameters", (op.parameters ?? []).map(({ name, in: place, required, schema }) =>
    `${name} (${place}${required ? ", required" : ""}): ${words(schema)}`));
  list("Request", content(op.requestBody));
  list("Answers", Object.entries(op.responses).map(([status, answer]) =>
    [`${status}: ${resolved(answer).description}`, ...content(answer)].join(" — ")));
  return details;
}

async function main() {
  api = await (await fetch("openapi.json")).json();
  const sections = api.tags.map(({ name }) => {
    const section = element("section", "", element("h2", name));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, op] of Object.entries(methods)) {
        if (op.tags.includes(name)) section.append(operation(method, path, op));
      }
    }
    return section;
  });
  const schemas = element("section", "", element("h2", "Schemas"), element("dl", "",
    ...Object.entries(api.components.schemas).flatMap(([name, schema]) =>
      [element("dt", name), element("dd", words(schema))])));
  document.getElementById("operations").replaceChildren(...sections, schemas);
  document.getElementById("operations").removeAttribute("aria-busy");
}

main();
