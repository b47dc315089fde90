package byoc;

import com.amazonaws.ml.mms.ModelServer;
import com.amazonaws.ml.mms.ServerInitializer;
import com.amazonaws.ml.mms.servingsdk.impl.PluginsManager;
import com.amazonaws.ml.mms.util.ConfigManager;
import com.amazonaws.ml.mms.util.Connector;
import com.amazonaws.ml.mms.util.ConnectorType;
import com.amazonaws.ml.mms.wlm.ModelManager;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.channel.Channel;
import io.netty.channel.ChannelFuture;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInboundHandlerAdapter;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoopGroup;
import io.netty.handler.codec.PrematureChannelClosureException;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import org.apache.commons.cli.CommandLine;
import org.apache.commons.cli.DefaultParser;
import org.apache.logging.log4j.util.StackLocator;

/**
 * multi-model-server with a {@link Gate} in front of it. Its own main class is not used, because it
 * answers /ping with 200 whatever happens, offers its management API, and has no way to be drained.
 */
public final class FrontEnd extends ModelServer {
    private final Settings settings;

    private FrontEnd(ConfigManager config, Settings settings) {
        super(config);
        this.settings = settings;
    }

    public static void main(String[] args) {
        Supervisor.listen(System.in, System.getProperty("byoc.reports"));
        silenceLogging();
        try {
            CommandLine line = new DefaultParser().parse(ConfigManager.Arguments.getOptions(), args, null, false);
            ConfigManager.init(new ConfigManager.Arguments(line));
            PluginsManager.getInstance().initialize();
            ConfigManager config = ConfigManager.getInstance();
            Settings settings = new Settings(config);
            new FrontEnd(config, settings).start();
            if (!settings.multiModel && ModelManager.getInstance().getModels().isEmpty()) {
                throw new IllegalStateException("no worker process could be started");
            }
            Watchdog.start();
            Supervisor.report(settings);
        } catch (Throwable error) {
            System.out.println("The front end could not start: " + error);
            Runtime.getRuntime().halt(1);
        }
        // The server's threads are no daemons: the program runs on until its supervisor ends it.
    }

    /** A request that was refused before its end is no error to be logged, as it is to the model server. */
    private static final class Unfinished extends ChannelInboundHandlerAdapter {
        @Override
        public void exceptionCaught(ChannelHandlerContext ctx, Throwable cause) {
            if (!(cause instanceof PrematureChannelClosureException)) {
                ctx.fireExceptionCaught(cause);
            }
        }
    }

    /** log4j prints a warning that it is slow on this version of Java, not in the log's format; it is not. */
    private static void silenceLogging() {
        PrintStream out = System.out;
        System.setOut(new PrintStream(new ByteArrayOutputStream()));
        StackLocator.getInstance();
        System.setOut(out);
    }

    /** The model server calls this once for each of its two APIs, or once for both if their addresses agree. */
    @Override
    public ChannelFuture initializeServer(
            Connector connector, EventLoopGroup acceptors, EventLoopGroup workers, ConnectorType api)
            throws InterruptedException {
        if (api == ConnectorType.MANAGEMENT_CONNECTOR) {
            return null; // never opened: whoever reaches it can register a model from a URL and run code
        }
        return new ServerBootstrap()
                .group(acceptors, workers)
                .channel(connector.getServerChannel())
                .option(ChannelOption.SO_BACKLOG, 1024)
                .option(ChannelOption.SO_REUSEADDR, true)
                .childOption(ChannelOption.SO_KEEPALIVE, true)
                .childHandler(
                        new ChannelInitializer<Channel>() {
                            @Override
                            protected void initChannel(Channel channel) {
                                channel.pipeline().addLast(new ServerInitializer(null, api));
                                Gate gate = new Gate(settings);
                                channel.pipeline().addAfter("http", "gate", gate);
                                channel.pipeline().addBefore("http", "framing", new Framing());
                                channel.pipeline().addFirst("patience", new Patience(gate, settings.timeoutSeconds));
                                channel.pipeline().addAfter("aggregator", "unfinished", new Unfinished());
                                channel.pipeline().addAfter("unfinished", "form", new Form());
                                if (settings.multiModel) {
                                    channel.pipeline().addAfter("form", "models", new ModelChanges());
                                }
                            }
                        })
                .bind(new InetSocketAddress(((InetSocketAddress) connector.getSocketAddress()).getPort())) // IPv6, too
                .sync();
    }
}
