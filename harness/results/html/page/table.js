// Tables: sorting, searching and paging by DataTables.

import { text } from "chunks";
import { element } from "format";

const { default: Library } = await import(
  URL.createObjectURL(new Blob([await text("datatables")], { type: "text/javascript" }))
);
const made = new Map();

/**
 * Draw rows into a table, in place of what it held.
 *
 * A column has `title`, `value(row)` to sort and search by, and `cell(row)`, an element or text (default: the value).
 */
export function table(id, columns, rows, { order = [], paging = 25 } = {}) {
  const place = document.getElementById(id);
  made.get(id)?.destroy();
  place.replaceChildren();
  // Columns may be others than before: DataTables takes those of the head.
  place.className = "display compact";
  const drawn = new Library(place, {
    data: rows,
    columns: columns.map((column) => ({
      title: column.title,
      className: column.numeric ? "dt-right" : "dt-left",
      type: column.numeric ? "num" : "string",
      // Unknown numbers stand last either way they are sorted first: below all others.
      data: (row, kind) => shown(column, row, kind),
    })),
    order,
    pageLength: paging,
    lengthMenu: [10, 25, 100, { label: "all", value: -1 }],
    deferRender: true,
    autoWidth: false,
    layout: { topStart: "pageLength", topEnd: "search", bottomStart: "info", bottomEnd: "paging" },
    language: { search: "Search", lengthMenu: "_MENU_ rows", emptyTable: "nothing to show" },
  });
  made.set(id, drawn);
  return drawn;
}

function shown(column, row, kind) {
  const value = column.value(row);
  if (kind === "display") {
    const cell = column.cell ? column.cell(row) : value;
    return cell instanceof Node ? cell : element("span", {}, String(cell ?? "–"));
  }
  if (column.numeric) return value === null || value === undefined ? -Infinity : value;
  return String(value ?? "");
}
