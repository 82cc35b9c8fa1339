/**
 * A user's way through the API, with the client that openapi-typescript and openapi-fetch make of its document.
 *
 * `ACCESS_TOKEN=… node journey.js <service>` prints what came back, as JSON.
 */
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Asked = paths["/api/token"]["get"]["parameters"]["query"];
type InvalidToken = components["schemas"]["Error401"]["error"];

const service = process.argv[2] ?? "http://localhost:5000";
const accessToken = process.env["ACCESS_TOKEN"] ?? "";

const api = createClient<paths>({ baseUrl: service, headers: { Authorization: `Bearer ${accessToken}` } });

const asked: Asked = { scope: "voip.join", minutes: 60 };

const created = await api.POST("/api/user");
const found = await api.GET("/api/user");
const issued = await api.GET("/api/token", { params: { query: asked } });
const tooMuch = await api.GET("/api/token", { params: { query: { scope: "everything" } } });
const signedOut = await api.DELETE("/api/token");
const deleted = await api.DELETE("/api/user");
const gone = await api.GET("/api/user");

const stranger = createClient<paths>({ baseUrl: service });
const refused = await stranger.GET("/api/user");
// The status is in the body, too: it narrows the error's type to the names of that status.
const reason: InvalidToken | undefined = refused.error?.code === 401 ? refused.error.error : undefined;

console.log(
  JSON.stringify({
    statuses: [created, found, issued, tooMuch, signedOut, deleted, gone, refused].map(({ response }) => response.status),
    created: created.data?.acsUserIdentity,
    found: found.data?.acsUserIdentity,
    token: issued.data?.token,
    issuedTo: issued.data?.user.communicationUserId,
    tooMuch: tooMuch.error?.error,
    gone: gone.error?.error,
    refused: reason,
  }),
);
