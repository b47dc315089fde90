package byoc;

import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpRequest;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.UUID;
import java.util.regex.Pattern;

/** The page on which a person tries the model. It is there for this machine's user, and off unless it was asked for. */
final class Page {
    // Nothing but the page's own two elements runs or is drawn, and it asks this server alone, with any text in a label.
    private static final String POLICY = "default-src 'none'; script-src 'nonce-NONCE'; style-src 'nonce-NONCE';"
            + " img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    private static final Path FOLDER = Path.of(System.getProperty("model_server_home"), "page");

    // An address of this machine, and the name for itself.
    private static final Pattern ADDRESS = Pattern.compile("[0-9.]+|\\[.+\\]|localhost");

    private Page() {}

    /**
     * Refuses a request that came by a name which is not this machine's. Anyone can make a name of theirs lead here: a
     * browser would take the page below it for theirs, and let them read what this server answers (DNS rebinding).
     */
    static void checkHost(HttpRequest request, Settings settings) throws Refusal {
        String given = request.headers().get(HttpHeaderNames.HOST, "localhost"); // HTTP/1.0, which no browser speaks
        String host = given.replaceFirst(":[0-9]*$", "").toLowerCase(Locale.ROOT);
        if (!ADDRESS.matcher(host).matches() && !host.equals(settings.host)) {
            throw new Refusal(421, "MisdirectedRequest", "This is answered at localhost, at this machine's name and at"
                    + " its IP addresses, not at the name " + RequestContext.printable(host, 100) + ".");
        }
    }

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
