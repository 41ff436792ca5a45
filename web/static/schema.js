/** The API page: renders the OpenAPI document of this service. */

import { callJson } from "./api.js";
import { byId, messageOf, within } from "./dom.js";

/**
 * @typedef {object} Schema
 * @property {string} [$ref]
 * @property {string | string[]} [type]
 * @property {string} [format]
 * @property {Schema[]} [oneOf]
 * @property {Schema} [items]
 * @property {unknown[]} [enum]
 * @property {string} [description]
 * @property {Record<string, Schema>} [properties]
 */
/** @typedef {{description?: string, content?: Record<string, {schema?: Schema}>}} Body */
/** @typedef {{name: string, in: string, description?: string, schema?: Schema}} Parameter */
/**
 * @typedef {object} Operation
 * @property {string[]} [tags]
 * @property {string} [summary]
 * @property {string} [description]
 * @property {Parameter[]} [parameters]
 * @property {Body} [requestBody]
 * @property {Record<string, Body>} responses
 */
/**
 * @typedef {object} OpenApi
 * @property {Record<string, Record<string, Operation>>} paths
 * @property {{schemas: Record<string, Schema>}} components
 */

/**
 * @param {string} tag
 * @param {(string | Node)[]} content
 */
function make(tag, ...content) {
  const element = document.createElement(tag);
  element.append(...content);
  return element;
}

/**
 * Text whose words in backticks are code.
 * @param {string} text
 */
function prose(text) {
  const pieces = text.split("`");
  return make("span", ...pieces.map((piece, at) => (at % 2 ? make("code", piece) : piece)));
}

/**
 * The name of a type.
 * @param {Schema | undefined} schema
 * @returns {string}
 */
function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop() ?? "";
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.oneOf) return schema.oneOf.map(typeOf).join(" | ");
  if (schema.items) return `${typeOf(schema.items)}[]`;
  const type = [schema.type ?? "any"].flat().join(" | ");
  return schema.format ? `${type} (${schema.format})` : type;
}

/** @param {Body | undefined} body */
function contentOf(body) {
  const kinds = Object.entries(body?.content ?? {});
  return kinds.map(([kind, { schema }]) => `${kind} ${typeOf(schema)}`.trim()).join(", ");
}

/**
 * @param {string} caption
 * @param {[name: string, type: string, description: string][]} rows
 */
function table(caption, rows) {
  const cells = rows.map(([name, type, description]) =>
    make("tr", make("td", make("code", name)), make("td", type), make("td", prose(description))),
  );
  const isEmpty = !cells.length;
  return isEmpty ? "" : make("table", make("caption", caption), make("tbody", ...cells));
}

/** @param {string} method @param {string} path @param {Operation} operation */
function operationOf(method, path, operation) {
  const { parameters = [], requestBody, responses } = operation;
  const title = make("code", `${method.toUpperCase()} ${path}`);
  const body = make(
    "div",
    ...(operation.description ?? "").split("\n\n").map((text) => make("p", prose(text))),
    table(
      "Parameters",
      parameters.map((each) => [
        each.name,
        `${each.in}, ${typeOf(each.schema)}`,
        each.description ?? "",
      ]),
    ),
    table(
      "Request",
      requestBody ? [["body", contentOf(requestBody), requestBody.description ?? ""]] : [],
    ),
    table(
      "Responses",
      Object.entries(responses).map(([status, each]) => [
        status,
        contentOf(each),
        each.description ?? "",
      ]),
    ),
  );
  body.className = "details";
  return make("details", make("summary", title, operation.summary ?? ""), body);
}

/** @param {string} name @param {Schema} schema */
function schemaOf(name, schema) {
  const fields = Object.entries(schema.properties ?? {}).map(
    ([field, each]) =>
      /** @type {[string, string, string]} */ ([field, typeOf(each), each.description ?? ""]),
  );
  const body = make("div", make("p", prose(schema.description ?? "")), table("Fields", fields));
  body.className = "details";
  return make("details", make("summary", make("code", name)), body);
}

/** @param {OpenApi} openApi */
function render({ paths, components }) {
  /** @type {Map<string, Node[]>} by tag */
  const groups = new Map();
  for (const [path, item] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const tag = operation.tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), operationOf(method, path, operation)]);
    }
  }
  const types = Object.entries(components.schemas).map(([name, each]) => schemaOf(name, each));
  groups.set("types", types);
  return [...groups].flatMap(([tag, nodes]) => [make("h2", tag), ...nodes]);
}

const message = byId("message", HTMLElement);
callJson("/schema/openapi.json").then(
  (openApi) => {
    within(document, "main", HTMLElement).append(...render(openApi));
    message.hidden = true;
  },
  (error) => {
    message.textContent = `Cannot load the API: ${messageOf(error)}. Reload this page to retry.`;
  },
);
