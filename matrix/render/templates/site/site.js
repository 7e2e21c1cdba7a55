// Every page answers without this script. It adds the look-up of a pair, the search for an error, arrow keys in grids, and,
// where pages can be fetched (not from a file), details in place with addresses of their own.
(() => {
  "use strict";
  document.documentElement.classList.add("js");
  const data = (id) => { const node = document.getElementById(id); return node ? JSON.parse(node.textContent) : null; };
  const make = (tag, text, className) => { const node = document.createElement(tag); if (text) node.textContent = text; if (className) node.className = className; return node; };
  const root = document.body.dataset.root || "";

  // From a server the address of a page has no file name.
  const served = location.protocol.startsWith("http");
  const clean = (url) => url.href.replace(/index\.html(?=$|[?#])/, "");
  if (served && /index\.html$/.test(location.pathname)) history.replaceState(history.state, "", clean(new URL(location.href)));

  // --- Is my error known? The steps and the rules of src/kvconform/explain.py.
  const STEPS = [
    [/\x1b\[[0-9;]*[A-Za-z]/g, ""],
    [/(^|\n)(?:[ \t]*E[ \t]|[ \t]*\[rank[0-9]+\]:)/g, "$1"],
    [/(?:[A-Za-z0-9_.~+@-]*[/\\])+/g, ""],
    [/0x[0-9a-fA-F]+/g, "#"],
    [/\b(?:zuf|zf|[suz])[0-9]+\b/g, "$$"],
    [/\b[0-9]+(?:\.[0-9]+)*\b/g, "#"],
    [/[`"\u2018\u2019\u201c\u201d]/g, "'"],
    [/[ \t\r\n\f\v]+/g, " "],
  ];
  const normalise = (text) => STEPS.reduce((found, [pattern, instead]) => found.replace(pattern, instead), text)
    .replace(/[A-Z]/g, (letter) => letter.toLowerCase()).replace(/^ +| +$/g, "");
  // What code asks a cache for that other releases have. The patterns and the rules of src/kvconform/classes.py.
  const PAGE = "cache-has-no-attribute";
  const MISSING = [
    [/'([a-z_0-9]+)' object has no attribute '([a-z_0-9]+)'/g, "attributes", ""],
    [/type object '([a-z_0-9]+)' has no attribute '([a-z_0-9]+)'/g, "attributes", ""],
    [/'([a-z_0-9]+)' object is not subscriptable/g, "attributes", "__getitem__"],
    [/'([a-z_0-9]+)' object is not iterable/g, "attributes", "__iter__"],
    [/object of type '([a-z_0-9]+)' has no len\(\)/g, "attributes", "__len__"],
    [/([a-z_0-9]+)\.([a-z_0-9]+)\(\) got an unexpected keyword argument '([a-z_0-9]+)'/g, "parameters", ""],
    [/([a-z_0-9]+)\.([a-z_0-9]+)\(\) missing # required positional arguments?: '([a-z_0-9]+)'/g, "parameters", ""],
    [/cannot import name '([a-z_0-9]+)' from 'transformers/g, "", ""],
    [/module 'transformers[a-z_.]*' has no attribute '([a-z_0-9]+)'/g, "", ""],
  ];
  const missing = (text, table) => {
    const always = `${table.releases[0]}..${table.releases[table.releases.length - 1]}`;
    const byName = new Map(Object.entries(table.classes).map(([name, one]) => [name.toLowerCase(), [name, one]]));
    let last = null;
    for (const [pattern, kind, operator] of MISSING) for (const match of text.matchAll(pattern)) {
      if (!byName.has(match[1])) continue;
      const [name, one] = byName.get(match[1]);
      const asked = operator || (kind === "parameters" ? `${match[2]}(${match[3]})` : match[2]);
      const key = kind && Object.keys(one[kind]).find((each) => each.toLowerCase() === asked);
      const where = kind ? key && one[kind][key] : one.releases !== always && one.releases;
      const end = match.index + match[0].length;
      if (where && !(last && last.end >= end)) last = {
        what: kind ? `${name}.${key}` : name, where: where.split(",").map((part) => part.replace("..", " to ")).join(" and "),
        attribute: kind === "attributes" ? key : "", size: match[0].length, end,
      };
    }
    return last;
  };
  const explain = (message, failures, table) => {
    const text = normalise(message.slice(-1000000));
    let best = null, most = -1, detail = "";
    const perhaps = new Map(), found = missing(text, table), asking = found && failures.find((failure) => failure.page === PAGE);
    if (asking) {
      const instead = (asking.instead || {})[found.attribute];
      [best, most, detail] = [asking, found.size, `${found.what} is in transformers ${found.where}.${instead ? ` Instead: ${instead}` : ""}`];
    }
    for (const failure of failures) for (const says of failure.says) {
      const parts = says.all.map(normalise);
      if (!parts.every((part) => text.includes(part)) || (says.unless || []).some((part) => text.includes(normalise(part)))) continue;
      if (says.perhaps) { if (!perhaps.has(failure.page)) perhaps.set(failure.page, [failure, says.perhaps]); continue; }
      const size = parts.reduce((sum, part) => sum + part.length, 0);
      if (size > most) [best, most, detail] = [failure, size, ""];
    }
    return { failure: best, detail, perhaps: best ? [] : [...perhaps.values()] };
  };
  window.kvconform = { normalise, explain };

  const tell = (failure, when, detail) => {
    const box = make("div");
    const head = make("p");
    head.append(make("b", failure.title));
    if (when) head.append(`, if ${when}`);
    head.append(".");
    const list = make("dl");
    const row = (name, text) => { list.append(make("dt", name), make("dd", text)); };
    if (detail) row("In detail", detail);
    else {
      row("Whose fault", failure.fault);
      row("First bad", failure.first_bad || "older than what was measured");
      row("First good", failure.first_good || "none yet");
      row("Seen with", failure.seen || "no measured pair");
    }
    row("What to do", failure.fix);
    box.append(head, list);
    if (failure.code) box.append(make("pre", failure.code));
    const link = make("a", "The lines that show it, and what fixes it");
    link.href = `${root}failure/${failure.page}/index.html`;
    box.append(link);
    return box;
  };
  // What failing checks said, fetched when no known failure says it. Their own words stand before "raised", and the place
  // that raised it at the end: neither is in what people paste.
  const LEAST = 20, MOST = 160;
  const core = (text) => normalise(text.split(" raised ").pop().replace(/\s*\(at [^()]*\)$/, "")).slice(0, MOST);
  let recorded = null;
  const fetched = () => {
    recorded = recorded || fetch(`${root}data/messages.json`).then((answer) => answer.json()).then((found) => found.messages.map((one) => [core(one.text), one]))
      .catch(() => { recorded = null; return null; });
    return recorded;
  };
  const alike = (message, all) => {
    const text = normalise(message.slice(-1000000));
    return all.filter(([part]) => part.length >= LEAST && (text.includes(part) || (text.length >= LEAST && part.includes(text))))
      .sort((one, other) => other[0].length - one[0].length).slice(0, 3).map((found) => found[1]);
  };
  const seen = (one) => {
    const box = make("p"), link = make("a", `torch ${one.torch} with transformers ${one.transformers}`);
    link.href = `${root}pair/${one.torch}/${one.transformers}/index.html`;
    box.append(make("code", one.text.slice(0, 300)), ` was said to ${one.subject} by ${one.check} in ${one.cells} cell${one.cells > 1 ? "s" : ""}, the newest `, link, ".");
    return box;
  };
  const form = document.getElementById("explain");
  if (form) {
    const failures = data("failures"), table = data("classes"), output = form.querySelector("output"), area = form.querySelector("textarea");
    const run = () => {
      if (!area.value.trim()) return output.replaceChildren();
      const { failure, perhaps, detail } = explain(area.value, failures, table);
      if (failure) output.replaceChildren(make("p", "Known.", "tag known"), tell(failure, "", detail));
      else if (perhaps.length) output.replaceChildren(make("p", "Not known for sure. It may be:", "tag open"), ...perhaps.map(([one, when]) => tell(one, when)));
      else {
        const asked = area.value, none = `Unknown: none of the ${failures.length} known failures says this`;
        output.replaceChildren(make("p", `${none}.`, "tag open"));
        // A page that was opened from a file may fetch nothing.
        if (served) fetched().then((all) => {
          if (!all || area.value !== asked) return;
          const found = alike(asked, all);
          if (found.length) output.replaceChildren(make("p", "Measured, and no page explains it:", "tag open"), ...found.map(seen));
          else output.replaceChildren(make("p", `${none}, and no failing check of the ${all.length} recorded messages.`, "tag open"));
        });
      }
    };
    form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
    area.addEventListener("input", run);
  }

  // --- Which known failure the reason of an architecture is. A page that was opened from a file may fetch nothing.
  const reasons = [...document.querySelectorAll("pre.said")];
  const name = (said, failures) => {
    const { failure, perhaps } = explain(said.textContent, failures, { releases: [""], classes: {} });
    const found = failure ? [[failure, ""]] : perhaps, line = make("p", failure ? "Known: " : "It may be: ", "named");
    if (!found.length) return;
    found.forEach(([one, when], number) => {
      const link = make("a", one.title);
      link.href = `${root}failure/${one.page}/index.html`;
      line.append(number ? "; " : "", link, when ? `, if ${when}` : "");
    });
    line.append(".");
    said.after(line);
  };
  if (served && reasons.length) fetch(`${root}data/known.json`).then((answer) => answer.json()).then((known) => reasons.forEach((said) => name(said, known.failures))).catch(() => null);

  // --- Does my pair work? What is selected stands in the address: #pair/2.9/4.57
  const pick = document.getElementById("pick");
  if (pick) {
    const pairs = data("pairs"), [torch, transformers] = pick.querySelectorAll("select"), output = pick.querySelector("output");
    const show = () => {
      const lines = pairs.of[`${torch.value}/${transformers.value}`] || [];
      const list = make("ul", "", "answers");
      for (const [name, tone, verdict, text] of lines.map((line) => [pairs.subjects[line[0]], ...line.slice(1).map((at) => pairs.texts[at])])) {
        const item = make("li", "", tone), answer = make("span");
        answer.append(make("b", verdict), text);
        item.append(make("span", name), answer);
        list.append(item);
      }
      const link = make("a", `Everything about torch ${torch.value} with transformers ${transformers.value}, and the lines to paste`);
      link.href = `${root}pair/${torch.value}/${transformers.value}/index.html`;
      output.replaceChildren(list, link);
    };
    const has = (select, value) => [...select.options].some((option) => option.value === value);
    const read = () => {
      const [, first, second] = location.hash.match(/^#pair\/([^/]+)\/([^/]+)$/) || [];
      if (first && has(torch, first) && has(transformers, second)) [torch.value, transformers.value] = [first, second];
      show();
    };
    pick.addEventListener("change", () => { history.pushState(null, "", `#pair/${torch.value}/${transformers.value}`); show(); });
    pick.addEventListener("submit", (event) => event.preventDefault());
    addEventListener("popstate", read);
    read();
    // benchmarks/page.py reads when the first answer stood there.
    performance.mark("answered");
  }

  // --- Arrow keys move in a grid.
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  document.addEventListener("keydown", (event) => {
    const cell = event.target.closest && event.target.closest(".grid td, .grid th");
    if (!cell || !step[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    let [row, column] = [cell.parentNode.rowIndex, cell.cellIndex];
    const rows = cell.closest("table").rows, [down, right] = step[event.key];
    for (row += down, column += right; rows[row] && rows[row].cells[column]; row += down, column += right) {
      const link = rows[row].cells[column].querySelector("a");
      if (link) { event.preventDefault(); link.focus(); return; }
    }
  });

  // --- Details in place: a link from a grid opens its page in a dialog, at the page's own address.
  if (!served || typeof HTMLDialogElement === "undefined") return;
  const here = location.href;
  let dialog = null;
  const close = () => { if (dialog) { const last = dialog; dialog = null; last.close(); last.remove(); } };
  const open = async (href, push) => {
    let text;
    try { const answer = await fetch(href); if (!answer.ok) throw new Error(answer.statusText); text = await answer.text(); } catch { location.href = href; return; }
    const page = new DOMParser().parseFromString(text, "text/html"), main = page.querySelector("main");
    for (const link of main.querySelectorAll("[href]")) link.setAttribute("href", new URL(link.getAttribute("href"), href).href);
    for (const node of main.querySelectorAll("[id]")) node.removeAttribute("id");
    close();
    dialog = make("dialog");
    dialog.setAttribute("aria-label", page.title);
    const bar = make("div", "", "bar"), button = make("button", "Close"), whole = make("a", "The page itself");
    whole.href = href;
    button.type = "button";
    button.addEventListener("click", () => history.back());
    bar.append(whole, button);
    dialog.append(bar, ...main.childNodes);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); history.back(); });
    document.body.append(dialog);
    if (push) history.pushState({ shows: href }, "", clean(new URL(href)));
    dialog.showModal();
    dialog.scrollTop = 0;
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("main .grid td a");
    if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || link.closest("dialog")) return;
    event.preventDefault();
    open(link.href, true);
  });
  addEventListener("popstate", (event) => {
    if (event.state && event.state.shows) open(event.state.shows, false);
    else if (dialog) close();
    else if (clean(new URL(location.href)).split("#")[0] !== clean(new URL(here)).split("#")[0]) location.reload();
  });
})();
