/** Ask the service; an error carries its code and its sentence. */

let key = "";

/** Send this API key with every request; "" for none. */
export function useKey(value) {
  key = value;
}

export class ServiceError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Return the service's answer, or throw a ServiceError. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  const answer = await fetch(path, { ...options, headers }).catch(() => {
    throw new ServiceError("no_answer", "The service did not answer.");
  });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new ServiceError(told.error?.code ?? answer.status, told.error?.message ?? "The service failed.");
}

/** Return a film's pixels: { pixels: Uint16Array, rows, columns, view }. */
export async function askFilm(file) {
  const form = new FormData();
  form.set("file", file);
  const answer = await ask("v1/films", { method: "POST", body: form });
  const [rows, columns] = ["rows", "columns"].map((name) => Number(answer.headers.get(`x-film-${name}`)));
  return { pixels: new Uint16Array(await answer.arrayBuffer()), rows, columns, view: answer.headers.get("x-film-view") };
}
