(function () {
  "use strict";
  var root = document.documentElement;
  // Storage is refused on some file:// pages; the toggle then lasts for one visit.
  function stored() { try { return localStorage.getItem("mdm-theme"); } catch (error) { return null; } }
  function store(value) { try { localStorage.setItem("mdm-theme", value); } catch (error) { return; } }
  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  if (stored() === "dark" || stored() === "light") { root.dataset.theme = stored(); }
  document.getElementById("theme").addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    store(root.dataset.theme);
  });

  // The contents list is a column on wide screens and folds away on narrow ones.
  var contents = document.getElementById("contents"), wide = matchMedia("(min-width: 64rem)");
  function fold() { contents.open = wide.matches; }
  fold();
  wide.addEventListener("change", fold);
  contents.addEventListener("click", function (event) {
    if (event.target.tagName === "A" && !wide.matches) { contents.open = false; }
  });

  // A link into a closed part opens it; paper has no closed parts.
  function reveal() {
    var target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (var node = target; node; node = node.parentElement) { if (node.tagName === "DETAILS") { node.open = true; } }
    if (target) { target.scrollIntoView(); }
  }
  addEventListener("hashchange", reveal);
  reveal();
  var closed = [];
  addEventListener("beforeprint", function () {
    closed = Array.prototype.filter.call(document.querySelectorAll("main details"), function (d) { return !d.open; });
    closed.forEach(function (d) { d.open = true; });
  });
  addEventListener("afterprint", function () { closed.forEach(function (d) { d.open = false; }); });

  // Mark the section being read.
  var links = {};
  document.querySelectorAll("#contents a").forEach(function (a) { links[a.hash.slice(1)] = a; });
  if ("IntersectionObserver" in window) {
    var observer = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (entry.isIntersecting && links[entry.target.id]) {
          Object.keys(links).forEach(function (id) { links[id].removeAttribute("aria-current"); });
          links[entry.target.id].setAttribute("aria-current", "true");
        }
      });
    }, { rootMargin: "-10% 0px -80% 0px" });
    document.querySelectorAll("main section[id], main article[id]").forEach(function (s) { observer.observe(s); });
  }
})();
