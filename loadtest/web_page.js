// The panel above Locust's page: deliveries and messages a second, and broken promises.
(() => {
  const base = document.currentScript.src.replace(/panel\.js.*$/, "");
  const WIDTH = 360, HEIGHT = 90, SVG = "http://www.w3.org/2000/svg";
  const CHARTS = [
    { key: "deliveries", title: "Deliveries per second", color: "#00a34a" },
    { key: "messages", title: "Messages stored per second", color: "#0088dd" },
    { key: "violations", title: "Violations so far", color: "#d92b2b" },
  ];

  const element = (name, properties, parent) =>
    parent.appendChild(Object.assign(document.createElement(name), properties));
  const number = (value) =>
    value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });

  const panel = document.createElement("section");
  panel.id = "relay-panel";
  panel.style.cssText =
    "display:flex;flex-wrap:wrap;gap:24px;padding:12px 24px;font:14px Roboto,Arial,sans-serif;" +
    "background:#fff;color:#222;border-bottom:1px solid #ccc";
  const status = element("div", { textContent: "no test has run yet" }, panel);
  status.style.cssText = "flex-basis:100%;font-weight:bold";
  const note = element(
    "div",
    { textContent: "Below, RPS and the totals count requests and deliveries together." },
    panel,
  );
  note.style.cssText = "flex-basis:100%;order:1;color:#666;font-size:12px";
  const charts = CHARTS.map((chart) => {
    const box = element("figure", {}, panel);
    box.style.cssText = `margin:0;flex:1 1 ${WIDTH}px`;
    const caption = element("figcaption", { textContent: chart.title }, box);
    const svg = box.appendChild(document.createElementNS(SVG, "svg"));
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.style.cssText = "width:100%;border:1px solid #ddd";
    const line = svg.appendChild(document.createElementNS(SVG, "polyline"));
    line.setAttribute("fill", "none");
    line.setAttribute("stroke", chart.color);
    line.setAttribute("stroke-width", "2");
    return { ...chart, caption, line };
  });

  const draw = ({ points, checked, violations, saturated }) => {
    if (!points.length) return;
    status.textContent =
      `${number(checked)} deliveries checked, ${number(violations)} violations.` +
      (saturated ? ` LOAD GENERATOR SATURATED for ${saturated} s: latencies invalid.` : "");
    status.style.color = violations ? "#d92b2b" : saturated ? "#b26a00" : "#00803a";
    const first = points[0].time;
    const length = Math.max(points.at(-1).time - first, 1);
    for (const { key, title, caption, line } of charts) {
      const highest = Math.max(...points.map((point) => point[key]));
      const top = Math.max(highest, 1);
      const x = (point) => ((point.time - first) / length) * WIDTH;
      const y = (point) => HEIGHT - 4 - (point[key] / top) * (HEIGHT - 8);
      line.setAttribute("points", points.map((point) => `${x(point)},${y(point)}`).join(" "));
      caption.textContent = `${title}: ${number(points.at(-1)[key])} (highest ${number(highest)})`;
    }
  };

  const update = async () => {
    try {
      const answer = await fetch(`${base}figures`);
      if (answer.ok) draw(await answer.json());
    } catch {
      status.textContent = "Locust does not answer";
    }
  };

  document.body.prepend(panel);
  update();
  setInterval(update, 1000);
})();
