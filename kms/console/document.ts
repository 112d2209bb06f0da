/** The console's page. Nothing in it comes from elsewhere: `CONSOLE_POLICY` would refuse it. */
export const CONSOLE_HTML = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Keyrise KMS</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/console/style.css">
<script type="module" src="/console/page.js"></script>
</head>
<body>
<a class="skip" href="#content">Skip to the state</a>
<header>
<h1>Keyrise KMS</h1>
<p>identity <code id="identity">–</code></p>
<p>custody <span id="custody">–</span></p>
<p role="status" aria-live="polite">connection <span id="link">starting</span></p>
</header>
<form id="login" hidden>
<h2>Sign in</h2>
<p id="wrong" class="bad" role="alert" hidden>The KMS did not accept this token.</p>
<label for="token">Administrator’s token</label>
<input id="token" type="password" autocomplete="off" required maxlength="512">
<button>Sign in</button>
</form>
<main id="content" tabindex="-1" hidden>
<section aria-labelledby="h-health"><h2 id="h-health">Health</h2><div id="health"></div></section>
<section aria-labelledby="h-keys"><h2 id="h-keys">Keys</h2><div id="keys"></div></section>
<section aria-labelledby="h-enclaves"><h2 id="h-enclaves">Live enclaves</h2><div id="enclaves"></div></section>
<section class="wide" aria-labelledby="h-flows"><h2 id="h-flows">Flows</h2><div id="flows"></div></section>
<section class="wide" aria-labelledby="h-recoveries"><h2 id="h-recoveries">Recoveries</h2><div id="recoveries"></div></section>
<section class="wide" aria-labelledby="h-receipts"><h2 id="h-receipts">Receipts</h2><div id="receipts"></div></section>
</main>
</body>
</html>
`

/** Scripts, styles and requests to this origin alone; no frame, no form that leaves. */
export const CONSOLE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

export const CONSOLE_STYLE = `:root {
  color-scheme: light dark;
  --page: light-dark(#f6f7f9, #14171c);
  --card: light-dark(#fff, #1d2229);
  --text: light-dark(#1c2430, #e6eaf0);
  --faint: light-dark(#5b6675, #9aa6b5);
  --line: light-dark(#d9dee6, #343c47);
  --good: light-dark(#136c3a, #6fd39a);
  --bad: light-dark(#a3221c, #ff9d94);
  --accent: light-dark(#1c56b8, #8ab4ff);
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: baseline; padding: .75rem 1.5rem;
  background: var(--card); border-bottom: 1px solid var(--line); }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
header p { margin: 0; color: var(--faint); }
code { font: .92em ui-monospace, monospace; color: var(--text); overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; padding: 1rem 1.5rem; outline: none; }
main[hidden], form[hidden] { display: none; }
section, form { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; min-width: 0; overflow-x: auto; }
.wide { grid-column: 1 / -1; }
form { max-width: 26rem; margin: 3rem auto; display: grid; gap: .5rem; }
input, button { font: inherit; padding: .4rem .6rem; border: 1px solid var(--faint); border-radius: .3rem; background: var(--page); color: inherit; }
button { background: var(--accent); color: var(--card); border-color: transparent; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; }
.skip:focus { left: .5rem; top: .5rem; background: var(--card); padding: .5rem; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-top: 1px solid var(--line); font-weight: normal; vertical-align: top; }
thead th { border-top: 0; color: var(--faint); font-size: .85rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 0; }
dt { color: var(--faint); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.good { color: var(--good); }
.bad { color: var(--bad); font-weight: 600; }
.empty, .count { color: var(--faint); margin: 0; }
.count { font-size: .85rem; }
ul { list-style: none; margin: 0; padding-left: 1.1rem; }
.tree { padding-left: 0; }
summary { cursor: pointer; }
svg { display: block; width: 100%; max-width: 60rem; height: auto; margin-bottom: .75rem; font-size: 12px; }
svg text { fill: var(--faint); }
svg line { stroke: var(--line); }
svg circle { fill: var(--accent); }
@media (prefers-reduced-motion: no-preference) { svg circle { transition: cx .3s; } }
`
