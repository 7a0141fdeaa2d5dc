
// The pivot of two axes that the reader chooses, from the rows of the jobs; as in sweep_axes.pivot.
const axes = document.querySelector(".axes");
const pivot = document.querySelector(".pivot");
const jobs = [...document.querySelectorAll(".jobs tbody tr")].sort((a, b) => value(a, 0) - value(b, 0));
const show = (fraction) => (100 * fraction).toFixed(1);

const element = (name, className, text) => {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
};

const draw = () => {
  const [down, across] = [...axes.querySelectorAll("select")].map((select) => Number(select.value) + 2);
  const values = (column) => [...new Set(jobs.map((row) => row.cells[column].textContent))];
  const inCell = (a, b) => jobs.filter((row) => row.dataset.top1 !== ""
    && row.cells[down].textContent === a && row.cells[across].textContent === b);
  const mean = (rows) => new Set(rows.map((row) => row.dataset.key)).size === 1
    ? rows.reduce((sum, row) => sum + Number(row.dataset.top1), 0) / rows.length : null;
  const names = [...axes.querySelectorAll("select")].map((select) => select.selectedOptions[0].text);
  const head = [names.join(" \\ "), ...values(across)].map((text, i) => element("th", i ? "n" : "", text));
  const cells = values(down).map((a) => values(across).map((b) => inCell(a, b)));
  const shade = (rows) => { // within the numbers that compare
    const key = rows[0]?.dataset.key;
    const means = cells.flat().filter((other) => other[0]?.dataset.key === key).map(mean).filter((one) => one !== null);
    const low = Math.min(...means);
    return 0.4 * (mean(rows) - low) / (Math.max(...means) - low || Infinity);
  };
  pivot.tHead.rows[0].replaceChildren(...head);
  pivot.tBodies[0].replaceChildren(...cells.map((row, i) => {
    const line = document.createElement("tr");
    line.append(element("th", "", values(down)[i]), ...row.map((rows) => {
      const number = mean(rows);
      const cell = element("td", "n", number === null ? "–" : show(number));
      const tops = rows.map((one) => Number(one.dataset.top1));
      cell.style.background = `rgba(var(--heat), ${number === null ? 0 : shade(rows)})`;
      if (rows.length > 1) {
        cell.append(element("span", "range", `${rows.length} jobs` + (number === null ? " that do not compare"
          : `, ${show(Math.min(...tops))} to ${show(Math.max(...tops))}`)));
      }
      return cell;
    }));
    return line;
  }));
};

// The choice and the sorted column are kept in the address, so that a page that reloads keeps them.
const state = new URLSearchParams(location.hash.slice(1));
const keep = (name, text) => {
  state.set(name, text);
  location.replace(`#${state}`);
};
if (axes) {
  axes.hidden = false;
  for (const select of axes.querySelectorAll("select")) {
    if (select.querySelector(`option[value="${state.get(select.name)}"]`)) select.value = state.get(select.name);
    select.addEventListener("change", () => {
      keep(select.name, select.value);
      draw();
    });
  }
  draw();
}
const buttons = [...document.querySelectorAll(".jobs thead button")];
const sorted = state.get("sort");
for (let click = 0; sorted && click < Number(sorted.split(".")[1]); click += 1) {
  buttons[Number(sorted.split(".")[0])]?.click();
}
buttons.forEach((button, column) => button.addEventListener("click", () => {
  keep("sort", `${column}.${button.parentElement.getAttribute("aria-sort") === "ascending" ? 1 : 2}`);
}));
