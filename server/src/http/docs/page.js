"use strict";
const description = JSON.parse(document.getElementById("description").textContent);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/// A text of the description: what stands between backticks is code.
function words(text) {
  return (text || "").split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));
}

/// Follows references, so that a reader sees the whole shape; stops where a shape contains itself.
function resolve(schema, seen = []) {
  if (!schema || typeof schema !== "object") return schema;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    if (seen.includes(name)) return name;
    return resolve(description.components.schemas[name], [...seen, name]);
  }
  if (Array.isArray(schema)) return schema.map((part) => resolve(part, seen));
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, resolve(value, seen)]));
}

/// The object itself, or what a reference names.
function followed(value) {
  return value && value.$ref ? value.$ref.slice(2).split("/").reduce((at, name) => at[name], description) : value;
}

/// A schema as people write a shape.
function shape(schema, indent = "") {
  if (typeof schema !== "object" || schema === null) return String(schema);
  const choices = schema.oneOf || schema.anyOf;
  if (choices) return choices.map((choice) => shape(choice, indent)).join(" | ");
  if (schema.allOf) return schema.allOf.map((part) => shape(part, indent)).join(" & ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const types = [].concat(schema.type || (schema.properties ? "object" : "any"));
  const texts = types.map((type) => {
    if (type === "array") return `[${shape(schema.items || {}, indent)}]`;
    if (type !== "object") return type;
    const inner = indent + "  ";
    const members = Object.entries(schema.properties || {}).map(([name, member]) => {
      const mark = (schema.required || []).includes(name) ? "" : "?";
      const why = member && member.description ? `  // ${member.description.split("\n")[0]}` : "";
      return `${inner}${name}${mark}: ${shape(member, inner)}${why}`;
    });
    if (schema.additionalProperties && typeof schema.additionalProperties === "object") {
      members.push(`${inner}[name]: ${shape(schema.additionalProperties, inner)}`);
    }
    return members.length ? `{\n${members.join("\n")}\n${indent}}` : "{}";
  });
  return texts.join(" | ");
}

function table(head, rows) {
  return element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))))));
}

/// An example as it is sent.
function sent(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function examples(media) {
  return Object.values(media.examples || {}).map(followed).map((example) =>
    element("figure", {}, element("figcaption", {}, `Example: ${example.summary}`), element("pre", {}, sent(example.value))));
}

/// What a body is: its form, which can be long, is folded where there are examples.
function content(body) {
  return Object.entries((body && body.content) || {}).filter(([type]) => !type.includes("problem")).map(([type, media]) => {
    const text = shape(resolve(media.schema || {}));
    const shown = examples(media);
    const form = ["any", "{}", "string"].includes(text) ? null : element("pre", {}, text);
    const folded = form && shown.length ? element("details", {}, element("summary", {}, "Form"), form) : form;
    return element("div", {}, element("code", {}, type), folded, ...shown);
  });
}

/// The codes that errors of a status may have, and the examples that are of this operation.
function problems(answer) {
  const media = answer.content && answer.content["application/problem+json"];
  if (!media) return [];
  const all = Object.entries(media.examples || {});
  const codes = all.filter(([, example]) => example.$ref).map(([code, example]) =>
    element("li", {}, element("code", {}, code), ` ${followed(example).summary}`));
  const own = all.filter(([, example]) => !example.$ref).map(([, example]) => example);
  return [element("ul", {}, ...codes), ...examples({ examples: own })];
}

function tryIt(method, path, parameters, body) {
  const fields = parameters.map((parameter) => {
    const required = parameter.in === "path";
    const value = required && parameter.example !== undefined ? { value: parameter.example } : {};
    const input = element("input", { "aria-label": parameter.name, ...(required ? { required: "" } : {}), ...value });
    return { parameter, input };
  });
  const types = Object.keys((body && body.content) || {});
  const first = types.length ? Object.values(body.content[types[0]].examples || {})[0] : null;
  const begin = first ? sent(followed(first).value) : "{}";
  const text = types.length ? element("textarea", { "aria-label": "body", spellcheck: "false" }, begin) : null;
  const type = types.length ? element("input", { "aria-label": "content type", value: types[0] }) : null;
  const result = element("pre", { role: "status" });
  result.hidden = true;
  const button = element("button", { type: "submit" }, `Send ${method}`);
  const form = element("form", {}, element("h3", {}, "Try it"));
  if (fields.length) {
    form.append(table(["name", "value"], fields.map(({ parameter, input }) => [element("code", {}, parameter.name), input])));
  }
  form.append(...[type, text, button, result].filter(Boolean));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let target = path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { parameter, input } of fields) {
      const value = input.value;
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(value));
      else if (value && parameter.in === "query") query.set(parameter.name, value);
      else if (value && parameter.in === "header") headers[parameter.name] = value;
    }
    const token = document.getElementById("token").value.trim();
    if (token) headers.Authorization = `Bearer ${token}`;
    if (type) headers["Content-Type"] = type.value;
    if (query.size) target += `?${query}`;
    result.hidden = false;
    result.textContent = "…";
    try {
      const answer = await fetch(target, { method, headers, body: text ? text.value : undefined });
      let shown = await answer.text();
      try { shown = JSON.stringify(JSON.parse(shown), null, 2); } catch { /* not JSON */ }
      const named = ["etag", "location", "folkmoot-durability", "preference-applied"];
      const head = named.map((name) => [name, answer.headers.get(name)]).filter(([, value]) => value);
      result.textContent = [`${answer.status} ${answer.statusText}`, ...head.map(([name, value]) => `${name}: ${value}`), "", shown].join("\n");
    } catch (error) {
      result.textContent = `no answer: ${error.message}`;
    }
  });
  return form;
}

function call(method, path, operation) {
  const parameters = (operation.parameters || []).map(followed);
  const lines = (operation.summary || "").trim();
  const inside = element("div", { class: "inside" });
  if (operation.description) inside.append(element("p", {}, ...words(operation.description)));
  if (parameters.length) {
    inside.append(element("h3", {}, "Parameters"), table(["name", "in", "meaning"],
      parameters.map((parameter) => [element("code", {}, parameter.name), parameter.in, element("span", {}, ...words(parameter.description))])));
  }
  if (operation.requestBody) {
    inside.append(element("h3", {}, "Body"));
    if (operation.requestBody.description) inside.append(element("p", {}, ...words(operation.requestBody.description)));
    inside.append(...content(operation.requestBody));
  }
  inside.append(element("h3", {}, "Answers"));
  inside.append(table(["status", "meaning"], Object.entries(operation.responses || {}).map(([status, answer]) => {
    const told = problems(answer);
    // Where the codes are listed with what they mean, the description that lists them says nothing more.
    const means = told.length && /^[a-z_, ]+$/.test(answer.description) ? [] : words(answer.description);
    return [element("code", {}, status), element("div", {}, ...means, ...content(answer), ...told)];
  })));
  const details = element("details", { class: "call" },
    element("summary", {}, element("span", { class: `method ${method}` }, method), element("code", { class: "path" }, path),
      lines ? element("span", { class: "what" }, ...words(lines)) : null));
  details.append(inside);
  details.addEventListener("toggle", () => {
    if (details.open && !inside.querySelector("form")) inside.append(tryIt(method, path, parameters, operation.requestBody));
  });
  details.dataset.text = `${method} ${path} ${lines} ${operation.description || ""}`.toLowerCase();
  return details;
}

const about = document.getElementById("about");
about.append(description.info.description || "", ". Version ", description.info.version, ". The description itself is at ",
  element("code", {}, "/v1/openapi.json"), ".");
// What most readers come for stands first; sections that are not named here follow.
const order = ["documents", "collections", "queries", "history", "changes", "sessions", "access", "audit", "erasures", "state", "health"];
const sections = new Map();
for (const [path, methods] of Object.entries(description.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    if (!operation || !operation.responses) continue;
    const tag = (operation.tags && operation.tags[0]) || "other";
    if (!sections.has(tag)) sections.set(tag, element("section", { id: tag }, element("h2", {}, tag)));
    sections.get(tag).append(call(method.toUpperCase(), path, operation));
  }
}
const calls = document.getElementById("calls");
calls.replaceChildren();
const place = (tag) => (order.includes(tag) ? order.indexOf(tag) : order.length);
for (const [tag, section] of [...sections].sort(([a], [b]) => place(a) - place(b))) {
  document.getElementById("tags").append(element("a", { href: `#${tag}` }, tag));
  calls.append(section);
}
document.getElementById("find").addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const section of sections.values()) {
    let any = false;
    for (const details of section.querySelectorAll("details.call")) {
      details.hidden = !details.dataset.text.includes(wanted);
      any = any || !details.hidden;
    }
    section.hidden = !any;
  }
});
