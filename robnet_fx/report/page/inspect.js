// Lights up what belongs to one source node: its box, its column of the chart, its lines of code, its row.
(() => {
  const all = [...document.querySelectorAll("[data-node]")];
  const arrows = [...document.querySelectorAll(".arrow")];
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let kept = null;

  const light = (name) => {
    for (const part of all) part.classList.toggle("on", part.dataset.node === name);
    for (const arrow of arrows) arrow.classList.toggle("on", name !== null && (arrow.dataset.from === name || arrow.dataset.to === name));
  };

  // Scrolls the pane, never the page.
  const reveal = (pane, part) => {
    if (!part || !pane) return;
    const box = part.getBoundingClientRect(), frame = pane.getBoundingClientRect();
    if (box.top >= frame.top + 20 && box.bottom <= frame.bottom - 20) return;
    pane.scrollBy({ top: box.top - frame.top - frame.height / 3, behavior: still ? "auto" : "smooth" });
  };

  const graph = document.getElementById("pane-graph"), code = document.getElementById("pane-code");
  const show = (name, from) => {
    if (!graph.contains(from)) reveal(graph, document.getElementById("node-" + name));
    if (!code.contains(from)) reveal(code, code.querySelector("[data-node=" + CSS.escape(name) + "]"));
  };

  for (const part of all) {
    part.addEventListener("mouseenter", () => light(part.dataset.node));
    part.addEventListener("mouseleave", () => light(kept));
    part.addEventListener("focusin", () => light(part.dataset.node));
    part.addEventListener("focusout", () => light(kept));
    part.addEventListener("click", (event) => {
      const inside = part.closest(".panes");
      if (inside) event.preventDefault();
      kept = kept === part.dataset.node && inside ? null : part.dataset.node;
      light(kept);
      if (kept !== null) show(kept, part);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") light((kept = null));
  });
})();
