import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.security.KeyStore;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Produces a record by java.net.http's WebSocket, and consumes it: trust store, then the base of the URLs. */
public class WebSockets {
    public static void main(String[] args) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        try (FileInputStream in = new FileInputStream(args[0])) {
            trusted.load(in, "storepass".toCharArray());
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance("PKIX");
        managers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder().sslContext(context).build();

        Next answer = new Next();
        WebSocket in = open(client, args[1] + "/socket/in?topic=java", answer);
        in.sendText("{\"value\":{\"value\":\"from Java\"}}", true).get(60, TimeUnit.SECONDS);
        System.out.println(answer.text.get(60, TimeUnit.SECONDS));
        Next record = new Next();
        WebSocket out = open(client, args[1] + "/socket/out?topic=java&clientId=java", record);
        System.out.println(record.text.get(60, TimeUnit.SECONDS));
        for (WebSocket socket : new WebSocket[] {in, out}) {
            socket.sendClose(WebSocket.NORMAL_CLOSURE, "").get(60, TimeUnit.SECONDS);
        }
        System.exit(0);
    }

    static WebSocket open(HttpClient client, String url, Next next) throws Exception {
        return client.newWebSocketBuilder().buildAsync(URI.create(url), next).get(60, TimeUnit.SECONDS);
    }

    /** The next message. */
    static class Next implements WebSocket.Listener {
        final CompletableFuture<String> text = new CompletableFuture<>();
        private final StringBuilder parts = new StringBuilder();

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
            parts.append(part);
            if (last) {
                text.complete(parts.toString());
            }
            socket.request(1);
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            text.completeExceptionally(error);
        }
    }
}
