package byoc;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.ByteToMessageDecoder;
import io.netty.handler.codec.DecoderResult;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Finds where each request's head ends, before the HTTP decoder does, and passes on only what every reader of HTTP/1.1
 * reads alike. A request whose end could be seen in two places would hide another one in its body. Anything else is
 * refused with 400 and ends the connection; so does, once it is answered, a request with a body in chunks, so that
 * nothing depends on where those end. A head that does not come to its end in time is refused with 408, and a client
 * that says nothing at all is left.
 */
final class Framing extends ByteToMessageDecoder {
    // What the decoder takes: 4 KB for the request line and 8 KB for the headers.
    private static final int HEAD_BYTES = 12 * 1024;
    private static final Pattern END = Pattern.compile("\n\r?\n");
    private static final Pattern REQUEST_LINE = Pattern.compile("([A-Z]{1,20}) ([\\x21-\\x7e]+) HTTP/1\\.([01])\r\n");
    private static final Pattern HEADER =
            Pattern.compile("([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\\t\\x20-\\x7e\\x80-\\xff]*)\r\n");
    // Headers that may stand there once, and what they may say.
    private static final Map<String, Pattern> ONCE = Map.of(
            "content-length", Pattern.compile("0|[1-9][0-9]{0,17}"),
            "transfer-encoding", Pattern.compile("(?i)chunked"),
            "host", Pattern.compile("([A-Za-z0-9._~%-]*|\\[[0-9A-Fa-f:.%]+\\])(:[0-9]{0,5})?"));

    private final int seconds; // for a head
    private long left; // bytes of the body that have not come yet; 0: a head comes next
    private boolean refused; // what follows is dropped
    private boolean spoken;
    private ScheduledFuture<?> timer; // not null: a head is waited for

    Framing(int seconds) {
        this.seconds = seconds;
    }

    @Override
    public void channelActive(ChannelHandlerContext ctx) {
        waitForHead(ctx);
        ctx.fireChannelActive();
    }

    private void waitForHead(ChannelHandlerContext ctx) {
        if (timer == null) {
            timer = ctx.executor().schedule(() -> giveUp(ctx), seconds, TimeUnit.SECONDS);
        }
    }

    private void giveUp(ChannelHandlerContext ctx) {
        timer = null;
        if (!spoken) {
            ctx.close();
        } else if (!ctx.channel().config().isAutoRead()) { // the request before it is not answered yet
            waitForHead(ctx);
        } else {
            String late = "The request's head did not arrive within " + seconds + " s.";
            ctx.fireChannelRead(refused(text(internalBuffer()), new Refusal(408, "RequestTimeout", late)));
        }
    }

    private void stop() {
        if (timer != null) {
            timer.cancel(false);
            timer = null;
        }
    }

    @Override
    protected void handlerRemoved0(ChannelHandlerContext ctx) {
        stop();
    }

    @Override
    protected void decode(ChannelHandlerContext ctx, ByteBuf in, List<Object> out) {
        spoken = true;
        int bytes = (int) Math.min(left, in.readableBytes());
        if (refused) {
            in.skipBytes(in.readableBytes());
        } else if (left > 0) {
            left -= bytes;
            out.add(in.readRetainedSlice(bytes));
        } else {
            String text = text(in);
            try {
                int size = head(text);
                if (size > 0) {
                    stop();
                    out.add(in.readRetainedSlice(size));
                } else {
                    waitForHead(ctx);
                }
            } catch (Refusal refusal) {
                in.skipBytes(in.readableBytes());
                out.add(refused(text, refusal));
            }
        }
    }

    /** The bytes of a head, and maybe of what follows it. */
    private static String text(ByteBuf in) {
        return in.toString(in.readerIndex(), Math.min(in.readableBytes(), HEAD_BYTES), StandardCharsets.ISO_8859_1);
    }

    /** A message that tells the filter to refuse the request. Nothing is read after it. */
    private FullHttpRequest refused(String text, Refusal refusal) {
        stop();
        refused = true;
        Matcher line = REQUEST_LINE.matcher(text);
        boolean understood = line.lookingAt();
        FullHttpRequest message = new DefaultFullHttpRequest(
                HttpVersion.HTTP_1_1,
                HttpMethod.valueOf(understood ? line.group(1) : "UNKNOWN"),
                understood ? line.group(2) : "-",
                Unpooled.EMPTY_BUFFER);
        message.setDecoderResult(DecoderResult.failure(refusal));
        return message;
    }

    /** The bytes of the head that the text begins with, and in `left` those of its body; 0: more have to come. */
    private int head(String text) throws Refusal {
        require(text.charAt(0) >= 'A' && text.charAt(0) <= 'Z', "it does not begin with a method");
        Matcher end = END.matcher(text);
        if (!end.find()) {
            require(text.length() < HEAD_BYTES, "its head is larger than " + HEAD_BYTES + " bytes");
            return 0;
        }
        Matcher line = REQUEST_LINE.matcher(text);
        require(line.lookingAt(), "its first line is not METHOD /path HTTP/1.1, with CR LF at its end");
        boolean isHttp10 = line.group(3).equals("0");
        Map<String, String> once = new HashMap<>();
        int last = end.end() - 2; // where the empty line has to begin
        Matcher header = HEADER.matcher(text).region(line.end(), end.end());
        for (int at = line.end(); at != last; at = header.end()) {
            require(header.region(at, end.end()).lookingAt(), "a line of its head is not Name: value, with CR LF at its end");
            header(header.group(1).toLowerCase(Locale.ROOT), header.group(2).trim(), once); // of spaces and tabs
        }
        boolean isChunked = once.containsKey("transfer-encoding");
        require(!isChunked || !isHttp10 && !once.containsKey("content-length"),
                "Transfer-Encoding is for HTTP/1.1, and without Content-Length");
        require(isHttp10 || once.containsKey("host"), "it has no Host header");
        left = isChunked ? Long.MAX_VALUE : Long.parseLong(once.getOrDefault("content-length", "0"));
        return end.end();
    }

    private static void header(String name, String value, Map<String, String> once) throws Refusal {
        Pattern allowed = ONCE.get(name);
        require(allowed == null || allowed.matcher(value).matches() && once.put(name, value) == null,
                "there may be one Content-Length with a number, one Transfer-Encoding: chunked, and one Host with a name or"
                        + " address and maybe a port");
        // The decoder would take 8 bytes for a body.
        require(!name.startsWith("sec-websocket-key") || name.length() == 17, "this server speaks no WebSocket");
    }

    private static void require(boolean holds, String otherwise) throws Refusal {
        if (!holds) {
            throw new Refusal(400, "BadRequest", "This is not a valid HTTP request: " + otherwise + ".");
        }
    }
}
