// The page answers without this script: it adds the two selects, and dialogs that keep and return the focus.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");

  const show = (id) => {
    const dialog = document.getElementById(id);
    if (!(dialog instanceof HTMLDialogElement) || dialog.open) return false;
    dialog.showModal();
    dialog.scrollTop = 0;
    history.replaceState(null, "", "#" + id);
    dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search), { once: true });
    return true;
  };
  document.addEventListener("click", (event) => {
    if (event.target instanceof HTMLDialogElement) return event.target.close(); // the backdrop
    const link = event.target.closest("a[href^='#']");
    if (!link || event.metaKey || event.ctrlKey) return;
    const dialog = link.closest("dialog");
    if (link.matches(".close")) {
      event.preventDefault();
      dialog.close();
    } else if (show(decodeURIComponent(link.hash.slice(1)))) event.preventDefault();
  });
  if (location.hash) show(decodeURIComponent(location.hash.slice(1)));

  const ask = document.querySelector(".ask");
  if (!ask) return;
  const [torch, transformers] = ask.querySelectorAll("select");
  const output = ask.querySelector("output");
  const answer = () => {
    const template = document.getElementById("answer-" + torch.value + "-" + transformers.value);
    output.replaceChildren(template ? template.content.cloneNode(true) : "Nobody has measured this pair yet.");
  };
  ask.addEventListener("change", answer);
  answer();
})();
