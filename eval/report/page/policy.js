// The page's policy forbids style attributes, whoever sets them. Plotly sets a few; as properties they are allowed.
(() => {
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style" && this.style) this.style.cssText = value;
    else set.call(this, name, value);
  };
})();
