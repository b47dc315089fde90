package byoc;

import io.netty.handler.codec.http.FullHttpResponse;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.UUID;

/** The page on which a person tries the model. It is there for this machine's user, and off unless it was asked for. */
final class Page {
    // Nothing but the page's own two elements runs or is drawn, and it asks this server alone, with any text in a label.
    private static final String POLICY = "default-src 'none'; script-src 'nonce-NONCE'; style-src 'nonce-NONCE';"
            + " img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    private static final Path FOLDER = Path.of(System.getProperty("model_server_home"), "page");

    private Page() {}

    static FullHttpResponse answer() throws Refusal {
        String nonce = UUID.randomUUID().toString();
        FullHttpResponse response = Answers.text("text/html; charset=utf-8", file("page.html").replace("NONCE", nonce));
        response.headers().set("Content-Security-Policy", POLICY.replace("NONCE", nonce)).set("Referrer-Policy", "no-referrer");
        return response;
    }

    /** One of the files that the supervisor has written for this server. */
    static String file(String name) throws Refusal {
        try {
            return Files.readString(FOLDER.resolve(name));
        } catch (IOException gone) {
            throw Refusal.internal();
        }
    }
}
