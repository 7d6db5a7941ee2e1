// Rule: a template with its strategies, or an expression, to look at: where the link in an alarm's message leads.

import * as api from "./api.js";
import { h } from "./dom.js";
import { t } from "./i18n.js";

export class RulePage {
  constructor({ kind, id }) {
    Object.assign(this, { kind, id, shown: "" });
    this.title = h("h1", {}, `${t(kind)} ${id}`);
    this.facts = h("p", { class: "footnote" });
    this.body = h("tbody", {});
    const heads = ["metric", "condition", "priority", "max_step", "hours", "note"];
    const table = h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...heads.map((key) => h("th", { scope: "col" }, t(key))))),
      this.body,
    );
    this.element = h(
      "div",
      {},
      h("div", { class: "host-head" }, h("a", { class: "back", href: "#/" }, "← ", t("back")), this.title),
      h("section", { class: "card" }, table, this.facts),
    );
  }

  close() {}

  show() {}

  // Filled anew only when it has changed, so that a selection survives a refresh.
  async refresh() {
    const answer = await (this.kind === "template" ? api.template(this.id) : api.expression(this.id));
    const text = JSON.stringify(answer);
    if (text === this.shown) return;
    this.shown = text;
    if (this.kind === "template") this.fillTemplate(answer);
    else this.fillExpression(answer);
  }

  fillTemplate({ template, stratges: strategies, action, parent_name: parent }) {
    this.title.textContent = template.tpl_name;
    this.body.replaceChildren(...strategies.map(strategyRow));
    this.fillFacts([parent && [t("parent"), parent], ...told(action), [t("made_by"), template.create_user]]);
  }

  fillExpression({ expression, action }) {
    this.title.textContent = `${t("expression")} ${expression.id}`;
    this.body.replaceChildren(ruleRow(expression.expression, expression, ""));
    this.fillFacts([
      expression.pause !== 0 && [t("paused"), "✓"],
      ...told(action),
      [t("made_by"), expression.create_user],
    ]);
  }

  fillFacts(facts) {
    const shown = facts.filter((fact) => fact && fact[1]);
    this.facts.textContent = shown.map(([name, value]) => `${name}: ${value}`).join(" · ");
  }
}

function strategyRow(strategy) {
  const metric = strategy.tags ? `${strategy.metric}/${strategy.tags}` : strategy.metric;
  const hours = strategy.run_begin ? `${strategy.run_begin}–${strategy.run_end}` : "";
  return ruleRow(metric, strategy, hours);
}

function ruleRow(what, rule, hours) {
  const badge = h("span", { class: `badge p${Math.min(rule.priority, 6)}` }, `P${rule.priority}`);
  return h(
    "tr",
    {},
    h("td", { class: "code strong" }, what),
    h("td", { class: "condition code" }, `${rule.func} ${rule.op} ${rule.right_value}`),
    h("td", { class: "tight" }, badge),
    h("td", { class: "tight" }, String(rule.max_step)),
    h("td", { class: "tight" }, hours),
    h("td", { class: "note" }, rule.note),
  );
}

// Who is told, and what is called.
function told(action) {
  return [
    [t("teams"), action.uic],
    [t("callback"), action.callback === 1 && action.url],
  ];
}
