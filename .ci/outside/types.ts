// What a front end in TypeScript writes, with the types that openapi-typescript makes. It is compiled, not run: walk.py walks.
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

const api = createClient<paths>({ baseUrl: "http://127.0.0.1:3000" });
const login = await api.POST("/auth/login", { body: { email: "ada@example.com", password: "Correct-Horse-1" } });
if (login.error) {
  const code: string = login.error.code;
  console.log(code);
} else {
  const headers = { authorization: `Bearer ${login.data.access_token}` };
  const { data: page } = await api.GET("/projects", { params: { query: { limit: 10 } }, headers });
  const next: string | null | undefined = page?.next;
  const { data: me } = await api.GET("/auth/me", { headers });
  const user: components["schemas"]["User"] | undefined = me;
  const role: "viewer" | "editor" | "admin" | undefined = user?.role;
  const plan: "free" | "paid" | "enterprise" | null | undefined = user?.plan;
  console.log(next, role, plan);
  // @ts-expect-error: a project needs a name
  await api.POST("/projects", { body: {}, headers });
  // @ts-expect-error: no such plan
  await api.PATCH("/admin/users/{id}", { params: { path: { id: "x" } }, body: { plan: "gold" }, headers });
}
