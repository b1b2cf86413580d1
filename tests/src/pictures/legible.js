// What nobody can read of the page as it stands, in words: text that is cut off, that lies on other text, or that can hardly be told
// from its ground. `least`: the least ratio of luminances, of large text at most 3 (WCAG 2.2, 1.4.3).
const faults = (least) => {
  const found = new Set();
  const screen = document.documentElement.clientWidth;
  const words = (line) => `"${line.node.data.trim().slice(0, 60)}"`;

  // `innerWidth` would not tell: a phone zooms out until all is in it.
  const wider = document.scrollingElement.scrollWidth - screen;
  if (wider > 0) found.add(`the page is ${wider} px wider than the screen`);

  // Each line of each text that is shown. What waits for the keyboard off the screen is not.
  const lines = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode, within = node.parentElement;
    if (!node.data.trim() || within.closest("script, style, .skip") || !within.checkVisibility({ visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 0) lines.push({ node, within, box });
  }

  for (const line of lines) {
    // A line's box has room above and below its letters.
    const { within, box } = line, room = box.height / 4;
    for (let around = within; around !== document.body; around = around.parentElement) {
      const style = getComputedStyle(around);
      if (style.display === "inline" || (style.overflowX === "visible" && style.overflowY === "visible")) continue;
      const edge = around.getBoundingClientRect();
      const isInside = box.left >= edge.left - 1 && box.right <= edge.right + 1 && box.top >= edge.top - room && box.bottom <= edge.bottom + room;
      if (!isInside) found.add(`cut off: ${words(line)}`);
    }
    if (box.left < -1 || box.right > screen + 1) found.add(`beyond the screen: ${words(line)}`);
  }

  lines.sort((a, b) => a.box.top - b.box.top);
  lines.forEach((a, i) => {
    for (const b of lines.slice(i + 1)) {
      if (b.box.top >= a.box.bottom) break;
      const across = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
      const down = Math.min(a.box.bottom, b.box.bottom) - b.box.top;
      if (across > 1 && down > Math.min(a.box.height, b.box.height) / 3) found.add(`one on another: ${words(a)}, ${words(b)}`);
    }
  });

  // Colours with their opacity last, by which the others are multiplied.
  const colour = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return [red * alpha, green * alpha, blue * alpha, alpha];
  };
  const over = (top, below) => top.map((part, i) => part + below[i] * (1 - top[3]));
  const luminance = (pixel) => {
    const [red, green, blue] = pixel.map((part) => part / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  for (const line of lines) {
    const style = getComputedStyle(line.within);
    // A pixel of a letter and one beside it, through all that they lie in.
    let pixels = [colour(line.within instanceof SVGElement ? style.fill : style.color), [0, 0, 0, 0]];
    for (let around = line.within; around; around = around.parentElement) {
      const { backgroundColor, opacity } = getComputedStyle(around);
      pixels = pixels.map((pixel) => over(pixel, colour(backgroundColor)).map((part) => part * opacity));
    }
    const [dark, light] = pixels.map((pixel) => luminance(over(pixel, [255, 255, 255, 1]))).sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (isLarge ? Math.min(least, 3) : least)) found.add(`contrast ${ratio.toFixed(2)}: ${words(line)}`);
  }
  return [...found];
};
