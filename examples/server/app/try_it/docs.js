// The page at /docs: shows openapi.json.
"use strict";

let api;

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

/** A sentence, in which `this` is code. */
function sentence(text) {
  return text.split("`").map((part, n) => (n % 2 ? element("code", part) : part));
}

/** Follows a reference within the document. */
function resolved(thing) {
  if (!thing?.$ref) return thing ?? {};
  return thing.$ref.slice(2).split("/").reduce((at, name) => at[name], api);
}

/** What a schema is, in one line; other schemas as links to where they are shown. */
function words(schema) {
  const between = (parts, by) => parts.flatMap((part, n) => (n ? [by, ...part] : part));
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    const link = element("a", name);
    link.href = `#${name}`;
    return [link];
  }
  if (schema.allOf) return between(schema.allOf.map(words), " and ");
  if (schema.anyOf) return between(schema.anyOf.map(words), " or ");
  if ("const" in schema) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  if (schema.type === "array") return ["list of ", ...words(schema.items)];
  const bounds = ["minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "default"]
    .filter((name) => name in schema).map((name) => `${name} ${schema[name]}`);
  return [[[schema.type].flat().join(" or "), schema.format, ...bounds].filter(Boolean).join(", ")];
}

/** A line for each member. */
function members(schema) {
  if (schema.allOf) return element("div", ...schema.allOf.map((part) => (part.$ref
    ? element("p", "All of ", ...words(part), ", and")
    : members(part))));
  if (!schema.properties) return element("p", ...words(schema));
  const { properties, required = [] } = schema;
  return element("ul", ...Object.entries(properties).map(([name, member]) => element("li",
    element("code", name), required.includes(name) ? ": " : ", may be left out: ", ...words(member),
    ...sentence(member.description ? `. ${member.description}` : ""))));
}

function content(of) {
  return Object.entries(resolved(of).content ?? {})
    .flatMap(([type, { schema }]) => [" ", element("code", type), " ", ...words(schema)]);
}

function operation(method, path, op) {
  const name = element("code", method.toUpperCase());
  name.className = "method";
  const details = element("details", element("summary", name, " ", element("code", path), ` ${op.summary}`));
  details.id = op.operationId;
  const description = [op.security ? "Signed in." : "For anyone.", op.description];
  details.append(element("p", ...sentence(description.filter(Boolean).join(" "))));
  const part = (title, ...children) => details.append(element("h3", title), ...children);
  if (op.parameters) {
    part("Parameters", element("ul", ...op.parameters.map(({ name, in: place, required, schema, description }) =>
      element("li", element("code", name), ` in the ${place}${required ? "" : ", may be left out"}: `, ...words(schema),
        ...sentence(description ? `. ${description}` : "")))));
  }
  for (const [type, { schema }] of Object.entries(op.requestBody?.content ?? {})) {
    part(`Body, ${type}`, members(resolved(schema)));
  }
  const answers = Object.entries(op.responses);
  const line = ([status, answer]) => element("li", element("strong", status), " ",
    ...sentence(resolved(answer).description), ...content(answer));
  part("Answers", element("ul", ...answers.filter(([status]) => status < 400).map(line)));
  part("Problems", element("ul", ...answers.filter(([status]) => status >= 400).map(([status, answer]) =>
    element("li", element("strong", status), " ", ...sentence(resolved(answer).description)))));
  return details;
}

function section(title, ...children) {
  return element("section", element("h2", title), ...children);
}

/** Opens what the address names. */
function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (named?.tagName === "DETAILS") named.open = true;
  named?.scrollIntoView();
}

async function main() {
  api = await (await fetch("openapi.json")).json();
  const { title, version, description } = api.info;
  document.getElementById("about").prepend(...sentence(`${title} ${version}. ${description} `));
  const sections = api.tags.map(({ name }) => section(name, ...Object.entries(api.paths)
    .flatMap(([path, methods]) => Object.entries(methods)
      .filter(([, op]) => op.tags.includes(name))
      .map(([method, op]) => operation(method, path, op)))));
  const schemas = Object.entries(api.components.schemas).map(([name, schema]) => {
    const details = element("details", element("summary", element("code", name)),
      ...(schema.description ? [element("p", ...sentence(schema.description))] : []), members(schema));
    details.id = name;
    return details;
  });
  const headers = Object.entries(api.components.headers).map(([name, { description }]) =>
    element("li", element("code", name), ...sentence(description ? `: ${description}` : "")));
  document.getElementById("operations").replaceChildren(...sections,
    section("Schemas", ...schemas), section("Headers", element("ul", ...headers)));
  document.getElementById("operations").removeAttribute("aria-busy");
  addEventListener("hashchange", openNamed);
  openNamed();
}

main();
