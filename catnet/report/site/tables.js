"use strict";
// Sorting and filtering of tables; floors stay where they are.

function compareCells(one, other) {
  const [a, b] = [one.dataset.sort, other.dataset.sort];
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}

function sortTable(table, header) {
  const place = [...header.parentNode.children].indexOf(header);
  const falling = header.classList.contains("number");
  const now = header.getAttribute("aria-sort") || (falling ? "ascending" : "descending");
  const next = now === "ascending" ? "descending" : "ascending";
  const sign = next === "ascending" ? 1 : -1;
  const body = table.querySelector("tbody.rows");
  const rows = [...body.rows];
  const has = (row) => row.cells[place].dataset.sort !== undefined;
  const known = rows.filter(has);
  known.sort((a, b) => sign * compareCells(a.cells[place], b.cells[place]));
  body.append(...known, ...rows.filter((row) => !has(row)));
  table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", next);
}

function filterTable(table, text, output) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...table.querySelectorAll("tbody.rows tr")];
  for (const row of rows) {
    const label = [...row.querySelectorAll("th")].map((name) => name.textContent.toLowerCase()).join(" ");
    row.hidden = !words.every((word) => label.includes(word));
  }
  const shown = rows.filter((row) => !row.hidden).length;
  output.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
}

for (const block of document.querySelectorAll("[data-table]")) {
  const table = block.querySelector("table");
  if (table.querySelector("tbody.rows")) {
    for (const button of table.querySelectorAll("th button")) {
      button.addEventListener("click", () => sortTable(table, button.parentNode));
    }
  }
  const input = block.querySelector("input[type=search]");
  if (input) {
    input.addEventListener("input", () => filterTable(table, input.value, block.querySelector("output")));
  }
}

window.addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("details:not([open])")) closed.open = true;
});
