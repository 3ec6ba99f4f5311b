"use strict";
// The controls of a review: decisions go to the server one after the other, and its answers are displayed.
(() => {
  const $ = (id) => document.getElementById(id);
  const parts = $("review-parts").content;
  let known = JSON.parse($("review-data").textContent), viewer = null, busy = false, noteOf = -1, noteSent = "", grey = "";

  function place() {
    const where = document.querySelector("[aria-label='Navigation'], [aria-label='Where to look']");
    where.after(parts.getElementById("review"));
    for (const line of [...parts.querySelector("dl").children]) document.querySelector("#keys dl").insertBefore(line, document.querySelector("#keys dl dt:last-of-type"));
    if (known.index) {
      const link = parts.getElementById("to-index");
      link.firstChild.href = known.index;
      document.querySelector("main").prepend(link);
    }
    $("view-hint").remove();
    const head = document.querySelector("#findings thead tr");
    if (!head) return;
    head.append(Object.assign(document.createElement("th"), { textContent: "review" }));
    document.querySelectorAll("#findings tbody tr").forEach((row) => { row.insertCell().className = "reviewed"; });
  }

  const keyOf = (index) => (viewer.findings[index] ? String(viewer.findings[index].number) : "");
  const decided = (index) => (known.decisions || {})[keyOf(index)] || { decision: "open", note: "" };
  const told = (said) => (said.decision === "open" ? "" : said.decision);
  function say(text, wrong = false) {
    $("review-said").textContent = text;
    $("review-said").classList.toggle("wrong", wrong);
  }
  function badge(element, said) {
    element.textContent = told(said);
    element.className = `badge ${told(said)}`;
  }

  function showTable() {
    document.querySelectorAll("#findings tbody tr").forEach((row, index) => {
      const said = decided(index), cell = row.lastElementChild, sign = document.createElement("span"), note = document.createElement("span");
      badge(sign, said);
      note.className = "said";
      note.textContent = said.note;
      row.className = told(said);
      cell.replaceChildren(sign, ...(said.note ? [note] : []));
    });
  }
  function progress() {
    const all = viewer.findings.map((finding, index) => ({ ...decided(index), ml: finding.volume_ml }));
    const of = (what) => all.filter((said) => said.decision === what);
    const ml = of("accepted").reduce((sum, said) => sum + said.ml, 0);
    return `${all.length - of("open").length} of ${all.length} decided: ${of("accepted").length} accepted (${ml.toFixed(2)} ml), ${of("rejected").length} rejected.`;
  }
  function showBar() {
    const now = viewer.now(), index = now.finding, finding = viewer.findings[index], said = decided(index);
    const free = Boolean(finding) && !busy && !known.error;
    for (const id of ["accept", "reject", "take-back", "note"]) $(id).disabled = !free;
    for (const id of ["accept", "reject", "take-back", "note-label"]) $(id).hidden = !now.written;
    $("save-mask").hidden = now.written;
    $("save-mask").disabled = busy || Boolean(known.error);
    // Messages about the saved mask do not apply to an unsaved one.
    $("review-said").hidden = !now.written && !busy && !$("review-said").classList.contains("wrong");
    $("accept").setAttribute("aria-pressed", String(said.decision === "accepted"));
    $("reject").setAttribute("aria-pressed", String(said.decision === "rejected"));
    badge($("review-decision"), said);
    if (noteOf !== index || document.activeElement !== $("note")) { $("note").value = said.note; noteOf = index; noteSent = ""; }
    const earlier = finding && !(known.decisions || {})[keyOf(index)] ? (known.earlier || {})[keyOf(index)] : null;
    $("review-earlier").hidden = !earlier;
    if (earlier) {
      const note = earlier.note ? `: “${earlier.note}”` : "";
      $("review-earlier").textContent = `On another mask (score of at least ${earlier.threshold.toFixed(3)}), a finding with this peak was ${earlier.decision === "open" ? "noted on" : earlier.decision}${note}.`;
    }
    if (!now.written) $("review-finding").textContent = "These findings are not on disk. To review them, save them as the mask; “Reset to saved” goes back.";
    else if (!viewer.findings.length) $("review-finding").textContent = "There is no finding to review.";
    else if (!finding) $("review-finding").textContent = "No finding is chosen.";
    else $("review-finding").textContent = `Finding ${finding.number} of ${viewer.findings.length} · ${finding.volume_ml.toFixed(2)} ml${finding.region ? ` · ${finding.region}` : ""}`;
  }
  function show() {
    showTable();
    showBar();
    const faded = viewer.findings.map((_, index) => index).filter((index) => decided(index).decision === "rejected");
    if (String(faded) !== grey) viewer.fade(faded); // which counts again
    grey = String(faded);
  }

  async function ask(message) {
    const answer = await fetch(location.pathname, {
      method: "POST", credentials: "same-origin", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...message, mask_sha256: known.mask_sha256 }),
    });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found;
  }
  const why = (error) => (error instanceof TypeError ? "The server does not answer: has halebrain view ended?" : `Not saved: ${error.message}.`);
  let line = Promise.resolve();
  function decide(index, decision, note) {
    if (!viewer.findings[index] || known.error) return;
    const lesion = viewer.findings[index].number;
    line = line.then(async () => {
      try {
        known = { ...known, ...await ask({ do: "decide", lesion, decision, note }) };
        show();
        say(`Saved. ${progress()}`);
      } catch (error) {
        noteSent = "";
        say(why(error), true);
      }
    });
  }
  function judge(decision) {
    const index = viewer.now().finding;
    if (index >= 0 && !busy) decide(index, decision, $("note").value.trim());
  }
  function keepNote() {
    const text = $("note").value.trim(), sent = `${noteOf} ${text}`;
    if (noteOf < 0 || text === decided(noteOf).note || sent === noteSent) return;
    noteSent = sent; // Enter, and then the loss of the focus, repeat it
    decide(noteOf, decided(noteOf).decision, text);
  }
  function nextOpen() {
    const count = viewer.findings.length, from = Math.max(viewer.now().finding, -1);
    for (let by = 1; by <= count; by++) {
      const index = (from + by) % count;
      if (decided(index).decision === "open") { viewer.show(index); return; }
    }
    say(count ? `Every finding is decided. ${progress()}` : "There is no finding to review.");
  }

  function askSave() {
    const now = viewer.now();
    if (now.written || busy || known.error) return;
    const small = now.minimum ? `, in components of at least ${now.minimum} mm³` : "";
    const grown = now.grow === null ? "" : `, grown to ${now.grow.toFixed(3)}`;
    $("save-what").textContent = `The new mask holds all voxels with a score of at least ${now.score.toFixed(3)}${grown}${small}: ${now.count} finding${now.count === 1 ? "" : "s"}.`;
    $("save-seg").hidden = !known.segmentation;
    $("save-filled").hidden = !known.filled;
    $("save-dialog").returnValue = "";
    $("save-dialog").showModal();
  }
  async function save() {
    const { threshold, minimum } = viewer.now();
    busy = true;
    showBar();
    say("Saving; this takes some seconds …");
    try {
      await line;
      await ask({ do: "save", threshold, min_lesion_mm3: minimum });
      location.reload();
    } catch (error) {
      busy = false;
      showBar();
      say(why(error), true);
    }
  }

  function start() {
    viewer = window.halebrain;
    place();
    let before = null;
    Object.assign(viewer.keys, {
      a: () => judge("accepted"), r: () => judge("rejected"), u: () => judge("open"), N: nextOpen, s: askSave,
      e: () => { before = document.activeElement; $("note").focus(); },
    });
    $("accept").addEventListener("click", viewer.keys.a);
    $("reject").addEventListener("click", viewer.keys.r);
    $("take-back").addEventListener("click", viewer.keys.u);
    $("save-mask").addEventListener("click", askSave);
    $("save-dialog").addEventListener("close", () => { if ($("save-dialog").returnValue === "save") save(); });
    $("note").addEventListener("change", keepNote);
    $("note").addEventListener("keydown", (event) => {
      if (event.key === "Escape") $("note").value = decided(noteOf).note;
      if (event.key === "Enter") keepNote();
      if (["Enter", "Escape"].includes(event.key)) { (before && before !== document.body ? before : $("plane-axial")).focus({ preventScroll: true }); event.preventDefault(); }
    });
    document.addEventListener("halebrain-change", showBar);
    show();
    if (known.error) say(known.error, true);
    else if (viewer.findings.length) say(progress());
    document.body.dataset.review = "yes";
  }
  if (document.body.dataset.ready) start();
  else document.addEventListener("halebrain-ready", start);
})();
