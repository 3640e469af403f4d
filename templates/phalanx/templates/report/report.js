"use strict";
// Sorting and filtering of tables. Without it a page shows the same rows, in the order of the file.
(() => {
  // Rows in the page at a time, and on paper: 10,000 at once cost a browser 18 s, and their print failed.
  const PAGE = 300, PAPER = 1000;
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const numeral = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

  function keyOf(cell) {
    const text = cell.textContent.trim();
    const plain = text.replace("−", "-").replace(/^±0/, "0").replace(/\s?%$/, "").replace(/ /g, "");
    return { text, number: numeral.test(plain) ? Number(plain) : null };
  }

  // What is empty stands last whichever way it goes; numbers before words.
  function compare(a, b, way) {
    if (!a.text || !b.text) return (a.text ? 0 : 1) - (b.text ? 0 : 1);
    if (a.number !== null && b.number !== null) return way * (a.number - b.number);
    if (a.number !== null || b.number !== null) return way * (a.number === null ? 1 : -1);
    return way * order.compare(a.text, b.text);
  }

  function enhance(table) {
    const section = table.closest("section");
    const body = table.tBodies[0], form = section.querySelector(".filter"), pager = section.querySelector(".pager");
    const all = Array.from(table.tBodies, (part) => Array.from(part.rows)).flat();
    let rows = all, found = all, first = 0, count = form ? PAGE : Infinity;
    const texts = new Map(), keys = new Map();

    const said = (number) => number.toLocaleString("en");

    function show() {
      const end = Math.min(first + count, found.length);
      body.replaceChildren(...found.slice(first, end));
      if (!form) return;
      const some = found.length === all.length ? "" : said(found.length) + " found, ";
      const which = end - first === found.length ? said(found.length) : said(first + 1) + "–" + said(end);
      form.querySelector("output").textContent = some + which + " of " + said(all.length) + " rows";
      if (!pager) return;
      pager.hidden = found.length <= count;
      const [back, on] = pager.querySelectorAll("button");
      back.disabled = first === 0;
      on.disabled = end === found.length;
    }

    function turn(by) {
      first = Math.max(0, first + by);
      show();
      const frame = table.closest(".scroll");
      frame.scrollTop = 0;
      frame.scrollIntoView({ block: "nearest" });
    }

    function textOf(row) {
      if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
      return texts.get(row);
    }

    function filter() {
      const words = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = new Set(Array.from(form.querySelectorAll("[aria-pressed=true]"), (chip) => chip.dataset.status));
      const column = Number(table.dataset.statusColumn);
      found = rows.filter((row) =>
        (!wanted.size || wanted.has(row.cells[column].textContent)) && words.every((word) => textOf(row).includes(word)));
      first = 0;
      show();
    }

    function sort(head) {
      const column = head.cellIndex, way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentNode.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      if (!keys.has(column)) keys.set(column, new Map(all.map((row) => [row, keyOf(row.cells[column])])));
      const of = keys.get(column);
      rows = rows.slice().sort((a, b) => compare(of.get(a), of.get(b), way));
      if (form) filter();
      else {
        found = rows;
        show();
      }
    }

    for (const head of table.tHead.rows[0].cells) {
      if (head.classList.contains("plain")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => sort(head));
    }
    if (form && all.length > 1) {
      form.hidden = false;
      form.addEventListener("submit", (event) => event.preventDefault());
      form.querySelector("input").addEventListener("input", filter);
      for (const chip of form.querySelectorAll(".chip")) chip.addEventListener("click", () => {
        chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") === "true" ? "false" : "true");
        filter();
      });
    }
    if (pager) {
      const [back, on] = pager.querySelectorAll("button");
      back.addEventListener("click", () => turn(-PAGE));
      on.addEventListener("click", () => turn(PAGE));
    }
    // Paper has no button: what was found is printed from its beginning.
    let before = [first, count];
    addEventListener("beforeprint", () => {
      before = [first, count];
      [first, count] = [0, form ? PAPER : Infinity];
      show();
    });
    addEventListener("afterprint", () => {
      [first, count] = before;
      show();
    });
    show();
  }

  for (const table of document.querySelectorAll("table.sortable")) enhance(table);
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details")) part.open = true;
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof HTMLInputElement) return;
    const input = document.querySelector(".filter:not([hidden]) input");
    if (input) { event.preventDefault(); input.focus(); }
  });
})();
