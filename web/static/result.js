/** Whether the job passed, from the exit lines at the end of its log. */

/** @typedef {import("./lines.js").Lines} Lines */

const SEARCHED_LINES = 50;
const COMMAND = /^The command .*exited with (\d+)\.?$/;
const JOB = [
  /^Done\. Your build exited with (\d+)\.?$/,
  /^##\[error\]Process completed with exit code (\d+)\.?$/,
  /^(?:ERROR: )?Job failed: exit (?:code|status) (\d+)$/,
];
const SUCCEEDED = /^Job succeeded$/;

/**
 * The exit code of a job; null if its last lines do not say it. A line about the whole job counts
 * more than those about single commands, of which one that failed counts most.
 * @param {string[]} texts the last lines
 */
export function exitCode(texts) {
  /** @type {number[]} */
  const commands = [];
  for (const text of texts.map((each) => each.trim()).reverse()) {
    if (SUCCEEDED.test(text)) return 0;
    const job = JOB.map((pattern) => pattern.exec(text)).find(Boolean);
    if (job) return Number(job[1]);
    const command = COMMAND.exec(text);
    if (command) commands.push(Number(command[1]));
  }
  return commands.find(Boolean) ?? commands[0] ?? null;
}

/**
 * The last lines of a log that are loaded.
 * @param {Lines} lines
 * @param {number} count of all lines
 */
export function lastTexts(lines, count) {
  const texts = [];
  for (let line = Math.max(count - SEARCHED_LINES, 0); line < count; line++) {
    const read = lines.read(line);
    if (read && !read.partial) texts.push(read.runs.map((run) => run.text).join(""));
  }
  return texts;
}
