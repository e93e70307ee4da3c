import * as governance from "@pulumi/istio-governance";
import * as pulumi from "@pulumi/pulumi";

const config = new pulumi.Config();
const cluster = config.requireObject<{ context: string; kubeconfig?: string }>("cluster");
const mesh = config.getObject<governance.types.input.MeshArgs>("mesh") ?? { mode: "existing" };
const namespace = config.get("namespace") ?? "shop";
const image = config.get("image") ?? "nginx:alpine";

const answering = (version: string) => ({
    command: ["sh", "-c", `echo ${version} > /usr/share/nginx/html/index.html; exec nginx -g 'daemon off;'`],
});

const shop = new governance.Application("shop", {
    cluster,
    mesh,
    namespace: { name: namespace },
    template: { image, env: { GREETING: "hello" } },
    services: {
        web: { ports: { http: { port: 80 } }, versions: { v1: answering("v1"), v2: answering("v2") } },
        caller: { versions: { v1: {} } },
    },
    routing: { web: { weights: config.requireObject<Record<string, number>>("weights") } },
});

new governance.Guard("guard", { cluster, mesh }, { dependsOn: shop });

export const weights = shop.weights;
export const urls = shop.urls;
