(() => {
  const root = document.documentElement;
  const show = (language) => {
    root.dataset.language = language;
    root.lang = language === "zh" ? "zh-CN" : "en";
    for (const button of document.querySelectorAll("[data-to]")) {
      button.setAttribute("aria-pressed", String(button.dataset.to === language));
    }
  };
  for (const button of document.querySelectorAll("[data-to]")) {
    button.addEventListener("click", () => show(button.dataset.to));
  }
  const asked = location.hash === "#zh" ? "zh" : location.hash === "#en" ? "en" : navigator.language.slice(0, 2);
  show(asked === "zh" ? "zh" : "en");
})();
