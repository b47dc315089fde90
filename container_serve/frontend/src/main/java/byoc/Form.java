package byoc;

import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandler.Sharable;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpMessage;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.multipart.DefaultHttpDataFactory;
import io.netty.handler.codec.http.multipart.FileUpload;
import io.netty.handler.codec.http.multipart.HttpPostRequestDecoder;
import io.netty.handler.codec.http.multipart.InterfaceHttpData;
import java.io.IOException;
import java.util.List;
import java.util.Locale;

/** Takes the one file out of a form, as requests.post(files=...) and curl -F send it, for a request of that file alone. */
@Sharable
final class Form extends ChannelInboundHandlerAdapter {
    private static final String FORM = "multipart/form-data";
    private static final String EXPECTED = "The form has to hold one file, and nothing else: ";

    static String mimeType(HttpMessage request) {
        CharSequence type = HttpUtil.getMimeType(request);
        return type == null ? "" : type.toString().trim().toLowerCase(Locale.ROOT);
    }

    static boolean isForm(String type) {
        return type.equals(FORM);
    }

    @Override
    public void channelRead(ChannelHandlerContext ctx, Object message) {
        if (!(message instanceof FullHttpRequest) || !isForm(mimeType((FullHttpRequest) message))) {
            ctx.fireChannelRead(message);
            return;
        }
        FullHttpRequest request = (FullHttpRequest) message;
        FullHttpRequest alone;
        try {
            alone = file(request);
        } catch (Refusal refusal) {
            ctx.writeAndFlush(refusal.answer());
            return;
        } finally {
            request.release();
        }
        ctx.fireChannelRead(alone);
    }

    private static FullHttpRequest file(FullHttpRequest request) throws Refusal {
        HttpPostRequestDecoder decoder = null;
        try {
            decoder = new HttpPostRequestDecoder(new DefaultHttpDataFactory(false), request); // false: nothing on a disk
            List<InterfaceHttpData> parts = decoder.getBodyHttpDatas();
            if (parts.size() != 1 || !(parts.get(0) instanceof FileUpload)) {
                throw refused(parts.size() == 1 ? "it holds a field without a file name" : "it holds " + parts.size() + " parts");
            }
            FileUpload file = (FileUpload) parts.get(0);
            String type = file.getContentType();
            FullHttpRequest alone = request.replace(Unpooled.wrappedBuffer(file.get()));
            HttpUtil.setContentLength(alone, alone.content().readableBytes());
            alone.headers().set(HttpHeaderNames.CONTENT_TYPE, type);
            if (mimeType(alone).startsWith("multipart/") || mimeType(alone).endsWith("urlencoded")) {
                alone.release();
                throw refused("its file is a form, too");
            }
            return alone;
        } catch (IOException | RuntimeException invalid) { // whatever the decoder makes of a body that is no form
            throw refused("it cannot be read");
        } finally {
            if (decoder != null) {
                decoder.destroy();
            }
        }
    }

    private static Refusal refused(String reason) {
        return new Refusal(400, "InvalidForm", EXPECTED + reason + ".");
    }
}
